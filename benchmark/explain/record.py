"""What is kept of an explained network: crops, maps, filters and checks, in one folder that needs no network."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from zipfile import BadZipFile
from zlib import error as ZlibError

import numpy as np
import pandas as pd

from benchmark.base.errors import MorphobenchError
from benchmark.base.files import read_json, whole, write_json

#: Increased when the content of records changes its meaning.
REVISION = 1
ARRAYS, RECORD = "arrays.npz", "explanation.json"
#: Columns of `benchmark.explain.sanity.sanity_check`, and their types.
SANITY_COLUMNS = {"method": str, "depth": str, "spearman": float, "ssim": float, "spearman_signed": float, "crops": int}
AGAIN = "Delete the folder and explain the network again."


@dataclass(frozen=True)
class Explanation:
    """Why a fine-tuned network predicted what it did for some crops. n crops, C channels, K labels, methods by name.

    Attributes
    ----------
    labels, channels, titles : tuple of str
        The K labels, the C channels, and each crop in words (well, compound).
    rows : ndarray of int64, shape (n,)
        Numbers of the crops in their source.
    truth, predicted : ndarray of int64, shape (n,)
        Labels by number. Maps explain the predicted one.
    probability : ndarray of float64, shape (n, K)
    pixels : ndarray of uint8 or uint16, shape (n, C, S, S)
    maps : dict of str to ndarray of float32, shape (n, S, S)
        Method → attributions with their sign, see `benchmark.explain.saliency`.
    by_channel : dict of str to ndarray of float64, shape (n, C)
        Method → share of the absolute attribution in each channel, where the method tells channels apart.
    gaps : ndarray of float32, shape (n,)
        What integrated gradients lack for completeness; empty where they were not asked for.
    regions : ndarray of uint8, shape (n, S, S)
        Indices of `benchmark.explain.regions.REGIONS`; empty without masks.
    areas : ndarray of float64, shape (n, 4)
        Share of each region in a crop's area; empty without masks.
    shares : dict of str to ndarray of float64, shape (n, 4)
        Method → share of each region in a crop's absolute attribution; nan where a map is empty.
    filters : ndarray of int64, shape (F,)
        Numbers of filters of the last feature map.
    tuned, pretrained : ndarray of float32, shape (F, C, T, T)
        Pictures that maximise them after and before fine-tuning; ``pretrained`` may be empty.
    sanity : DataFrame
        As `benchmark.explain.sanity.sanity_check` makes it.
    verdicts : dict of str to str
        Method → the sanity check in a sentence.
    refused : dict of str to str
        Method → why it could not be used with this network.
    facts : dict
        JSON-able: settings, seed, how crops were chosen, where the weights came from.
    """

    labels: tuple[str, ...]
    channels: tuple[str, ...]
    titles: tuple[str, ...]
    rows: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray
    probability: np.ndarray
    pixels: np.ndarray
    maps: dict[str, np.ndarray]
    by_channel: dict[str, np.ndarray]
    gaps: np.ndarray
    regions: np.ndarray
    areas: np.ndarray
    shares: dict[str, np.ndarray]
    filters: np.ndarray
    tuned: np.ndarray
    pretrained: np.ndarray
    sanity: pd.DataFrame
    verdicts: dict[str, str]
    refused: dict[str, str]
    facts: dict[str, Any]


_MAPPINGS = ("maps", "by_channel", "shares")
_PLAIN = ("rows", "truth", "predicted", "probability", "pixels", "gaps", "regions", "areas", "filters", "tuned",
          "pretrained")


def write_explanation(explanation: Explanation, folder: Path) -> None:
    """Write all into a new folder, whole or not at all: arrays without pickle, the rest as JSON.

    Raises
    ------
    MorphobenchError
        The folder exists.
    """
    if folder.exists():
        raise MorphobenchError("exists already", str(folder), AGAIN)
    arrays = {name: getattr(explanation, name) for name in _PLAIN}
    for group in _MAPPINGS:
        arrays |= {f"{group}/{method}": values for method, values in getattr(explanation, group).items()}
    rest = {f.name: getattr(explanation, f.name) for f in fields(explanation) if f.name not in (*_PLAIN, *_MAPPINGS)}
    rest["sanity"] = explanation.sanity.replace({np.nan: None}).to_dict("records")
    with whole(folder) as tmp:
        try:
            with whole(tmp / ARRAYS) as path:
                np.savez_compressed(path, allow_pickle=False, **arrays)
            write_json(tmp / RECORD, rest | {"revision": REVISION, "arrays": sorted(arrays)})
        except BaseException:
            shutil.rmtree(tmp, ignore_errors=True)
            raise


def read_explanation(folder: Path) -> Explanation:
    """Read what `write_explanation` wrote.

    Raises
    ------
    MorphobenchError
        The folder is missing, damaged or of another revision.
    """
    try:
        record = read_json(folder / RECORD)
        with np.load(folder / ARRAYS, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, BadZipFile, ZlibError) as error:
        raise MorphobenchError(f"holds no whole explanation ({error})", str(folder), AGAIN) from error
    if record.pop("revision", None) != REVISION or record.pop("arrays", None) != sorted(arrays):
        raise MorphobenchError("was written by another version, or its files do not belong together", str(folder),
                               AGAIN)
    for group in _MAPPINGS:
        start = f"{group}/"
        record[group] = {name.removeprefix(start): arrays[name] for name in arrays if name.startswith(start)}
    record["sanity"] = pd.DataFrame(record["sanity"], columns=list(SANITY_COLUMNS)).astype(SANITY_COLUMNS)
    for name in ("labels", "channels", "titles"):
        record[name] = tuple(record[name])
    return Explanation(**record, **{name: arrays[name] for name in _PLAIN})

