"""Loading the tensors of a file into a model: every tensor of the backbone, or an error that lists what does not fit.

timm can load a file too (``pretrained_cfg_overlay``). Ours stays, because timm 1.0.15, the oldest that is
accepted here, reads it by pickle, and because timm shares colours among 4, 5, 7 or 8 channels by another rule and drops
a classifier of another size without a check of the rest. Where timm's loading applies, a test holds both to the same
tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from benchmark.base.errors import MorphobenchError
from benchmark.networks.weights.channels import COLOURS, adapt_filters
from benchmark.networks.weights.timm_models import config, is_of_classifier, names_of

#: Auxiliary classifiers, which torchvision's and some TensorFlow files of Inception carry and timm builds without.
AUXILIARY = "AuxLogits."
#: How many names of each kind a message gives.
NAMED = 3


@dataclass(frozen=True)
class Fit:
    """How the tensors of a file fit those of a model.

    Attributes
    ----------
    fitting : dict
        What can be loaded, with the first layer's three colours shared among the model's channels.
    missing : list of str
        Tensors of the backbone that the file lacks.
    unknown : list of str
        Tensors of the file that the model has no place for.
    misfit : list of str
        Names and both shapes of those whose shapes differ.
    broken : list of str
        Tensors that hold infinities or no numbers.
    """

    fitting: dict[str, Tensor]
    missing: list[str]
    unknown: list[str]
    misfit: list[str]
    broken: list[str]

    @property
    def whole(self) -> bool:
        """Whether the whole backbone can be loaded and nothing is left over."""
        return not (self.missing or self.unknown or self.misfit or self.broken)


def fit(model: nn.Module, state: Mapping[str, Tensor]) -> Fit:
    """Compare a file's tensors with a model's, by name and shape.

    Not counted as faults: a classifier that does not fit, since it is trained from scratch; counters of batch
    normalisation, which old files lack; auxiliary classifiers.

    Parameters
    ----------
    state : mapping
        Tensors under timm's names. torchvision's resnet50 and inception_v3 have the same names, shapes and order of
        computation as timm's (its inception_v3 differs in the auxiliary classifier alone; its ``transform_input``
        turns ImageNet's normalisation into the mean and deviation of 0.5 that timm's configuration says).
    """
    target = model.state_dict()
    fitting: dict[str, Tensor] = {}
    unknown, misfit = [], []
    for name, tensor in adapted(model, state).items():
        fits = name in target and target[name].shape == tensor.shape
        if fits:
            fitting[name] = tensor
        elif not is_of_classifier(model, name) and not name.startswith(AUXILIARY):
            if name in target:
                misfit.append(f"{name}: file {tuple(tensor.shape)}, model {tuple(target[name].shape)}")
            else:
                unknown.append(name)
    wrong = {text.split(":")[0] for text in misfit}
    missing = [k for k in target if k not in fitting and k not in wrong and _counts(model, k)]
    broken = [k for k, v in fitting.items() if v.is_floating_point() and not v.isfinite().all()]
    return Fit(fitting, missing, unknown, misfit, broken)


def load(model: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Load the whole backbone, and the classifier where it fits.

    Raises
    ------
    MorphobenchError
        Not everything fits; it lists what does, what does not, and why.
    """
    outcome = fit(model, state)
    if not outcome.whole:
        raise MorphobenchError(_report(model, outcome, len(state)), where,
                               "Use a file made for this network, with timm's names (torchvision's resnet50 and "
                               "inception_v3 have the same), or name in network.backbone the network it was made for.")
    model.load_state_dict(outcome.fitting, strict=False)


def _report(model: nn.Module, outcome: Fit, tensors: int) -> str:
    name = config(model).get("architecture", "the backbone")
    ours = [k for k in outcome.fitting if _counts(model, k)]
    of = len(ours) + len(outcome.missing) + len(outcome.misfit)
    much = "" if len(ours) > of / 2 else "nothing" if not ours else "little"
    kinds = (("fitting", ours), ("missing", outcome.missing), ("unknown", outcome.unknown),
             ("other shape", outcome.misfit), ("not finite", outcome.broken))
    return ((f"holds {much} of {name}" if much else f"does not fit {name}")
            + f": {tensors} tensors in the file, {len(ours)} of the backbone's {of} fit; "
            + "; ".join(f"{kind} {len(names)} ({_some(names)})" for kind, names in kinds if names))


def _counts(model: nn.Module, name: str) -> bool:
    """Whether the backbone is not whole without this tensor."""
    return not is_of_classifier(model, name) and not name.endswith("num_batches_tracked")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (", …" if len(names) > NAMED else "")


def adapted(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``state`` with the first convolution's three colours shared among the model's channels."""
    target = model.state_dict()
    out = dict(state)
    for name in (f"{first}.weight" for first in names_of(config(model).get("first_conv"))):
        if name in out and name in target and out[name].ndim == 4 and out[name].shape[1] == COLOURS:
            out[name] = adapt_filters(out[name], target[name].shape[1])
    return out
