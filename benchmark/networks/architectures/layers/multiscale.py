"""The multi-scale CNN of Godinez, Hossain, Lazic, Davies & Zhang 2017 (Bioinformatics 33:2010), trained from scratch.

Whole fields are processed at seven scales at once, full size to 1/64, by parallel paths of convolutions, whose outputs
are pooled to the coarsest scale's grid, concatenated, mixed by a 1 × 1 convolution and classified by two fully
connected layers. The paper's own specification is its Supplementary Software 1, which is not public code; the
layers, numbers of kernels and maximum pooling here are those of the reimplementation of Hofmarcher et al. 2019
(J. Chem. Inf. Model. 59:1163, `github.com/ml-jku/hti-cnn`, ``models.MCNN``).

Chosen here, since a crop may have any size from 64 pixels on:

- where 64 does not divide the size, pooling windows at the border are cut short (or overlap) so that no pixel is left
  out;
- the joined maps are pooled to 4 × 4, which is the 2 × 2 pooling of the reimplementation for crops of 512 pixels.
  Smaller crops repeat their positions, larger ones are pooled more, so the number of weights is the same for all;
- kernels start from He et al. 2015 for rectifiers; inputs in 0…1 become −1…1.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_max_pool2d, max_pool2d, relu

from benchmark.base.errors import MorphobenchError

#: Kernels of the paths, from full size to 1/64.
WIDTHS = (16, 16, 16, 32, 32, 32, 64)
#: The coarsest scale is 1/COARSEST of the crop.
COARSEST = 2 ** (len(WIDTHS) - 1)
MIXED = 1024
GRID = 4
HIDDEN = 512


def path(channels: int, width: int) -> nn.Sequential:
    """Three 5 × 5 convolutions with rectifiers, at one scale."""
    layers: list[nn.Module] = []
    for before, after in pairwise((channels, width, width, width)):
        layers += [nn.Conv2d(before, after, 5, padding=2), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class MultiScaleCNN(nn.Module):
    """The network.

    Parameters
    ----------
    channels : int
        Planes of the input.
    classes : int
        Outputs; 0 gives the 512 values before the last layer.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        side = 2 * GRID * COARSEST
        self.pretrained_cfg = {"architecture": "mcnn", "input_size": (3, side, side), "mean": (0.5,) * 3,
                               "std": (0.5,) * 3, "classifier": "classifier"}
        self.paths = nn.ModuleList(path(channels, width) for width in WIDTHS)
        self.mix = nn.Conv2d(sum(WIDTHS), MIXED, 1)
        self.hidden = nn.Linear(MIXED * GRID * GRID, HIDDEN)
        self.classifier = nn.Linear(HIDDEN, classes) if classes else nn.Identity()
        for name, parameter in self.named_parameters():
            if not name.startswith("classifier."):
                if parameter.ndim > 1:
                    nn.init.kaiming_normal_(parameter, nonlinearity="relu")
                else:
                    nn.init.zeros_(parameter)

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.classifier

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, classes); raises as `features`."""
        return self.classifier(self.features(x))

    def features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the (B, 512) values that the last layer takes.

        Raises
        ------
        MorphobenchError
            The crop is smaller than the coarsest scale.
        """
        height, width = x.shape[-2:]
        if min(height, width) < COARSEST:
            raise MorphobenchError(f"cannot take crops of {min(height, width)} px", "network mcnn",
                                   f"It looks at 1/{COARSEST} of their size: set crops.size to {COARSEST} or more.")
        grid = (height // COARSEST, width // COARSEST)
        scales = [adaptive_max_pool2d(p(max_pool2d(x, 2**i, ceil_mode=True) if i else x), grid)
                  for i, p in enumerate(self.paths)]
        mixed = adaptive_max_pool2d(relu(self.mix(torch.cat(scales, 1))), (GRID, GRID))
        return relu(self.hidden(mixed.flatten(1)))
