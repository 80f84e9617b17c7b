"""Run folders: one prediction file a fold, written whole; a finished fold is never run again.

Where a fold has a dose series (`benchmark.folds.fold.Fold.response`), its predictions lie in a file beside.
"""

from __future__ import annotations

import platform
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow

from benchmark import __version__
from benchmark.base.errors import LeakError, MorphobenchError
from benchmark.base.files import digest, read_json, safe_name, write_json, write_parquet
from benchmark.base.tables import LABEL, TREATMENT_KEY, WELL_KEY, check_predictions, labels_of
from benchmark.folds.fold import Fold, Split, WellKey
from benchmark.methods.base import Method

PACKAGES = ("torch", "torchvision", "timm", "scikit-learn", "pycytominer", "copairs", "harmonypy", "pandas", "numpy",
            "h5py")


@dataclass(frozen=True)
class RunFolder:
    """Where one method's folds of one study land: ``runs/<study>/<method>/<key>/``.

    The key hashes everything the predictions depend on (method and settings, assay, split, the features they
    start from), so a changed setting gets a folder of its own and nothing finished is clobbered.
    """

    path: Path
    config: dict[str, Any]

    @property
    def record_path(self) -> Path:
        """The run's record; it exists when every fold does."""
        return self.path / "record.json"

    def fold_path(self, fold: Fold, seed: int) -> Path:
        """The prediction file of a fold."""
        return self.path / f"seed{seed}-{safe_name(fold.name)}.parquet"

    def missing(self, split: Split, seeds: tuple[int, ...]) -> list[tuple[Fold, int]]:
        """Folds still to run, in order."""
        return [(f, s) for s in seeds for f in split.folds if not self.fold_path(f, s).exists()]


def open_run(study_folder: Path, method: Method, split: Split, inputs: dict[str, Any]) -> RunFolder:
    """The run folder of a method, made if need be, with its resolved configuration inside.

    Parameters
    ----------
    inputs : dict
        Keys (hashes) of what the method starts from: the CellProfiler pipeline and its cells, crops, weights.
    """
    config: dict[str, Any] = {
        "method": method.model_dump(mode="json"),
        "revision": method.revision,
        "split_hash": split.hash,
        "assay_hash": split.assay_hash,
        "inputs": inputs,
    }
    keyed = {**config, "method": {k: v for k, v in config["method"].items() if k not in method.unkeyed}}
    path = study_folder / method.name / digest(keyed)
    run = RunFolder(path, config)
    if not (path / "config.json").exists():
        write_json(path / "config.json", config)
    return run


def response_path(path: Path) -> Path:
    """The file with the predictions of a fold's dose series, beside its prediction file."""
    return path.with_name(f"{path.stem}-response.parquet")


def write_fold(
    path: Path, predictions: pd.DataFrame, fold: Fold, facts: dict[str, Any], response: pd.DataFrame | None = None,
    covered: pd.DataFrame | None = None,
) -> None:
    """Check a fold's predictions and write them: facts (seconds, memory, choices) and dose series first.

    The prediction file comes last, so that a fold whose prediction file exists is whole.

    Parameters
    ----------
    response : DataFrame, optional
        Predictions of the fold's unlabelled dose series, ``Metadata_Label`` empty, else as ``predictions``.
    covered : DataFrame, optional
        Where treatments are predicted: the wells they are made of, with plate, well and treatment.

    Raises
    ------
    LeakError
        The predicted wells are not exactly the fold's test wells (or its dose series), or a well of the dose
        series is tested or trained on as well, or has a label.
    MorphobenchError
        A table is malformed; see `benchmark.base.tables.check_predictions`.
    """
    check_predictions(predictions, str(path))
    check_wells(predictions if covered is None else covered, fold.test, "test wells", fold)
    if covered is not None:
        check_treatments(predictions, covered, fold)
    if response is None:
        response = predictions.iloc[:0]
    check_wells(response, fold.response, "dose series", fold)
    if len(response):
        _check_response(response, predictions, fold, path)
        write_parquet(response_path(path), response)
    write_json(path.with_suffix(".json"), facts)
    write_parquet(path, predictions)


def check_wells(table: pd.DataFrame, wells: tuple[WellKey, ...], what: str, fold: Fold) -> None:
    """The rows of a table lie in exactly these wells; LeakError else."""
    have = set(table[WELL_KEY].itertuples(index=False, name=None)) if len(table) else set()
    if have != set(wells):
        raise LeakError(f"the predicted wells are not the fold's {what}", f"fold {fold.name!r}")


def check_treatments(predictions: pd.DataFrame, covered: pd.DataFrame, fold: Fold) -> None:
    """The predicted treatments are those of the wells they are said to be made of; LeakError else."""
    have, want = (set(t[TREATMENT_KEY].itertuples(index=False, name=None)) for t in (predictions, covered))
    if have != want:
        raise LeakError("the predicted treatments are not those of the fold's test wells", f"fold {fold.name!r}")


def _check_response(response: pd.DataFrame, predictions: pd.DataFrame, fold: Fold, path: Path) -> None:
    """A dose series has no labels, lies on neither side of the fold, and has the fold's columns."""
    where = f"dose series of fold {fold.name!r}"
    shared = sorted(set(fold.response) & {*fold.test, *fold.train})
    if shared:
        raise LeakError(f"the well {shared[0]} is also tested or trained on", where)
    if (response[LABEL] != "").any():
        raise LeakError("has labels, and must not be scored", where)
    if labels_of(response) != labels_of(predictions):
        raise MorphobenchError("has other p_<label> columns than the fold's predictions", where)
    check_predictions(response.assign(**{LABEL: labels_of(response)[0]}), str(response_path(path)))


def _read_fold(path: Path, fold: Fold, run: RunFolder) -> pd.DataFrame:
    if not path.exists():
        raise MorphobenchError("is not there", f"fold {fold.name!r} of {run.path}",
                               "Delete the fold's prediction file, if it is there, and run the study again.")
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise MorphobenchError(f"cannot be read ({' '.join(str(error).split())[:200]})", str(path),
                               "Delete it and the fold's prediction file, and run again.") from error


def read_run(run: RunFolder, split: Split, seeds: tuple[int, ...]) -> pd.DataFrame:
    """All folds' predictions as one table.

    Raises
    ------
    MorphobenchError
        A fold is missing, unreadable or malformed (its file is named).
    """
    paths = [(run.fold_path(fold, seed), fold) for seed in seeds for fold in split.folds]
    tables = []
    for path, fold in paths:
        tables.append(_read_fold(path, fold, run))
        _check_again(tables[-1], path)
    table = pd.concat(tables, ignore_index=True)
    _check_again(table, run.path)  # two folds may be at odds
    return table


def _check_again(predictions: pd.DataFrame, where: Path) -> None:
    """`check_predictions` of what was read from disk: somebody has been at the file, or it was damaged."""
    try:
        check_predictions(predictions, str(where))
    except MorphobenchError as error:
        raise MorphobenchError(error.fault.what, str(where), "Delete it and run the study again.") from error


def read_response(run: RunFolder, split: Split, seeds: tuple[int, ...]) -> pd.DataFrame:
    """Predictions of all folds' dose series as one table; empty where no fold has one.

    Raises
    ------
    MorphobenchError
        A file is missing or unreadable (its fold is named).
    LeakError
        A file holds other wells than the fold's dose series, or labels.
    """
    tables = []
    for seed in seeds:
        for fold in split.folds:
            if fold.response:
                path = run.fold_path(fold, seed)
                table = _read_fold(response_path(path), fold, run)
                check_wells(table, fold.response, "dose series", fold)
                _check_response(table, table, fold, path)
                tables.append(table)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


@dataclass(frozen=True)
class FoldFacts:
    """What was noted of a fold when it ran.

    Attributes
    ----------
    seconds : float
        Wall seconds, with those before it was stopped, if it was.
    peak_mib : float
        Peak memory of the process.
    device : str
        What it ran on.
    more : mapping
        What its kind of method notes besides.
    """

    seconds: float
    peak_mib: float
    device: str
    versions: Mapping[str, str]
    more: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> FoldFacts:
        """The facts beside a prediction file; MorphobenchError where it is no such file."""
        beside = path.with_suffix(".json")
        noted: dict[str, Any] = read_json(beside)
        lacking = {"seconds", "peak_mib", "device"} - set(noted if isinstance(noted, dict) else ())
        if lacking:
            raise MorphobenchError(f"lacks {', '.join(sorted(lacking))}", str(beside),
                                   "Delete it and the fold's prediction file, and run again.")
        more = {k: v for k, v in noted.items() if k not in ("seconds", "peak_mib", "device", "versions")}
        return cls(noted["seconds"], noted["peak_mib"], noted["device"], noted.get("versions", {}), more)


def fold_facts(run: RunFolder, split: Split, seeds: tuple[int, ...]) -> list[FoldFacts]:
    """What was noted of each fold, in order."""
    return [FoldFacts.read(run.fold_path(f, s)) for s in seeds for f in split.folds]


def versions() -> dict[str, str]:
    """Versions, in this process, of Python, morphobench and the packages that make the numbers."""
    found = {"python": platform.python_version(), "morphobench": __version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def joined_versions(folds: Sequence[FoldFacts]) -> dict[str, str]:
    """Versions that folds were run with, as each noted them: several of one package where it was changed between."""
    noted = [fold.versions for fold in folds if fold.versions] or [versions()]
    return {name: ", ".join(sorted({str(of.get(name, "not installed")) for of in noted})) for name in noted[0]}


@contextmanager
def measured(facts: dict[str, Any]) -> Iterator[None]:
    """Put wall and CPU seconds of the block, this process's peak memory (MiB) and versions into ``facts``."""
    with suppress(OSError):  # Linux: workers live through many tasks, and the peak is to be this one's
        Path("/proc/self/clear_refs").write_text("5")
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    facts["seconds"] = round(time.perf_counter() - wall, 3)
    facts["cpu_seconds"] = round(time.process_time() - cpu, 3)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    facts["peak_mib"] = round(peak / (1024**2 if sys.platform == "darwin" else 1024))
    facts["versions"] = versions()
