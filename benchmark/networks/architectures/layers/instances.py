"""Deep multiple-instance learning: a field is a bag of instances, of which only the bag has a label.

Instances are the positions of a timm network's feature map over a whole field, as Kraus, Ba & Frey 2016
(Bioinformatics 32:i52) have it: their network is fully convolutional, and so is a network without its pooling and
classifier. Or they are the crops (tiles, cells) of a field or a well, each passed through the network.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from benchmark.base.errors import MorphobenchError
from benchmark.networks.architectures.layers.pooling import attend, log_noisy_and
from benchmark.networks.settings import Pooling
from benchmark.networks.weights.timm_models import config, names_of

#: Units of the attention's hidden layer in the experiments of Ilse, Tomczak & Welling 2018.
ATTENTION_UNITS = 128


class NoisyAnd(nn.Module):
    """Class probabilities of each instance, pooled by noisy-AND with a learnt threshold per class.

    The output is log P of each class, to which the training's softmax and cross-entropy are applied: the
    probabilities are P over their sum. Kraus et al. put a fully connected layer with softmax on P instead, and add
    the cross-entropy of each P to its loss, without which a map would not stay that of its class. Here one loss does
    both, since each class is decided by its own map and nothing else.
    """

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.score = nn.Linear(features, classes)
        self.threshold = nn.Parameter(torch.full((classes,), 0.5))  # starts where it is steepest; chosen here

    def forward(self, instances: Tensor) -> Tensor:
        """(B, N, K) instances: (B, classes), at most 0."""
        return log_noisy_and(self.score(instances), self.threshold)


class GatedAttention(nn.Module):
    """Gated attention pooling (Ilse, Tomczak & Welling 2018, ICML, equations 7 and 9), then a linear classifier.

    Instance k's score is w·(tanh(V h) ⊙ σ(U h)); weights are the softmax of scores over the bag. ``V``, ``U`` and
    ``w`` have biases, which the paper leaves out.
    """

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.content = nn.Linear(features, ATTENTION_UNITS)
        self.gate = nn.Linear(features, ATTENTION_UNITS)
        self.weigh = nn.Linear(ATTENTION_UNITS, 1)
        self.score = nn.Linear(features, classes)

    def forward(self, instances: Tensor) -> Tensor:
        """(B, N, K) instances: (B, classes) logits."""
        return self.score(self.pool(instances))

    def pool(self, instances: Tensor) -> Tensor:
        """The bag as one (B, K) vector, which the classifier takes."""
        gated = self.content(instances).tanh() * self.gate(instances).sigmoid()
        return attend(instances, self.weigh(gated)[..., 0].softmax(1))


class Mean(nn.Module):
    """The mean of instances, then a linear classifier: what the other two must beat."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.score = nn.Linear(features, classes)

    def forward(self, instances: Tensor) -> Tensor:
        """(B, N, K) instances: (B, classes) logits."""
        return self.score(self.pool(instances))

    def pool(self, instances: Tensor) -> Tensor:
        """The bag as one (B, K) vector, which the classifier takes."""
        return instances.mean(1)


HEADS: dict[Pooling, type[nn.Module]] = {"noisy_and": NoisyAnd, "attention": GatedAttention, "mean": Mean}


class MultipleInstances(nn.Module):
    """A timm network without its classifier, whose positions (or crops) are instances, and what pools them.

    Parameters
    ----------
    network : Module
        From timm, made without a classifier.
    classes : int
        At least 1: pooling is learnt, so there are no features before it.
    """

    def __init__(self, network: nn.Module, classes: int, pooling: Pooling) -> None:
        super().__init__()
        if classes < 1:
            raise ValueError("multiple-instance learning has no frozen features: its pooling is learnt")
        self.network = network
        self.head = HEADS[pooling](cast(int, network.num_features), classes)
        first = tuple(f"network.{name}" for name in names_of(config(network).get("first_conv")))
        self.pretrained_cfg = config(network) | {"classifier": "head", "first_conv": first}

    def get_classifier(self) -> nn.Module:
        """What starts from random weights."""
        return self.head

    def forward(self, x: Tensor) -> Tensor:
        """Scores of fields or bags.

        Parameters
        ----------
        x : Tensor
            (B, C, S, S): one crop per field, whose positions are the instances. Or (B, T, C, S, S): T crops per bag,
            each an instance (the mean of its positions). Bags have as many crops as each other: see
            `benchmark.networks.feed.bags`.

        Returns
        -------
        Tensor
            (B, classes) to which softmax applies, float32.
        """
        instances = self._of_crops(x) if x.ndim == 5 else self._positions(x)
        with torch.autocast(x.device.type, enabled=False):  # probabilities near 0 and 1 need 32 bits
            return self.head(instances.float())

    def features(self, x: Tensor) -> Tensor:
        """(B, C, S, S) to (B, K): fields as the classifier takes them, their positions pooled.

        Raises
        ------
        MorphobenchError
            The pooling is noisy-AND, which pools scores of each class and no features.
        """
        if isinstance(self.head, NoisyAnd):
            raise MorphobenchError("has no features before its classifier: noisy-AND pools the scores of each class",
                                   "network mil", "Use network.pooling: attention or mean.")
        instances = self._positions(x)
        with torch.autocast(x.device.type, enabled=False):
            return cast(Tensor, self.head.pool(instances.float()))  # type: ignore[operator]

    def _positions(self, x: Tensor) -> Tensor:
        """Features at each position of the feature map: (B, C, S, S) to (B, N, K)."""
        network = cast(Any, self.network)
        maps = network.forward_features(x)
        if maps.ndim == 3:  # a transformer's tokens, less those that belong to no place
            return maps[:, getattr(network, "num_prefix_tokens", 0):]
        if getattr(network, "output_fmt", "NCHW") != "NHWC":
            maps = maps.permute(0, 2, 3, 1)
        return maps.flatten(1, 2)

    def _of_crops(self, x: Tensor) -> Tensor:
        """Mean features of each crop of each bag: (B, T, C, S, S) to (B, T, K)."""
        crops = x.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        return self._positions(crops).mean(1).unflatten(0, x.shape[:2])
