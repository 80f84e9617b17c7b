"""Run folders: one prediction file a fold, written whole; a finished fold is never run again."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from benchmark.errors import LeakError, MorphobenchError
from benchmark.files import digest, read_json, safe_name, write_json, write_parquet
from benchmark.methods.settings import MethodSettings
from benchmark.splits import Fold, Split
from benchmark.tables import WELL_KEY, check_predictions

#: Raised when a method's code changes what it predicts, so that old folds are not taken for new ones.
REVISION = {"cell_count": 1, "profile": 1, "cnn_frozen": 1, "cnn_finetuned": 1}


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


def open_run(study_folder: Path, method: MethodSettings, split: Split, inputs: dict[str, Any]) -> RunFolder:
    """The run folder of a method, made if need be, with its resolved configuration inside.

    Parameters
    ----------
    inputs : dict
        Keys (hashes) of what the method starts from: the CellProfiler pipeline and its cells, crops, weights.
    """
    config: dict[str, Any] = {
        "method": method.model_dump(mode="json"),
        "revision": REVISION[method.kind],
        "split_hash": split.hash,
        "assay_hash": split.assay_hash,
        "inputs": inputs,
    }
    # The title is for readers: changing it changes no prediction.
    keyed = {**config, "method": {k: v for k, v in config["method"].items() if k != "title"}}
    path = study_folder / method.name / digest(keyed)
    run = RunFolder(path, config)
    if not (path / "config.json").exists():
        write_json(path / "config.json", config)
    return run


def write_fold(path: Path, predictions: pd.DataFrame, fold: Fold, facts: dict[str, Any]) -> None:
    """Check a fold's predictions and write them, facts (seconds, memory, choices) first.

    Raises
    ------
    LeakError
        The predicted wells are not exactly the fold's test wells.
    """
    check_predictions(predictions, str(path))
    predicted = set(predictions[WELL_KEY].itertuples(index=False, name=None))
    if predicted != set(fold.test):
        raise LeakError("the predicted wells are not the fold's test wells", f"fold {fold.name!r}")
    write_json(path.with_suffix(".json"), facts)
    write_parquet(path, predictions)


def read_run(run: RunFolder, split: Split, seeds: tuple[int, ...]) -> pd.DataFrame:
    """All folds' predictions as one table.

    Raises
    ------
    MorphobenchError
        A fold is missing or unreadable (it is named).
    """
    tables = []
    for seed in seeds:
        for fold in split.folds:
            path = run.fold_path(fold, seed)
            if not path.exists():
                raise MorphobenchError("is not there", f"fold {fold.name!r} of {run.path}", "Run the study again.")
            try:
                tables.append(pd.read_parquet(path))
            except (OSError, ValueError) as error:
                raise MorphobenchError(f"cannot be read ({error})", str(path),
                                       "Delete it and run again.") from error
    table = pd.concat(tables, ignore_index=True)
    check_predictions(table, str(run.path))
    return table


def fold_facts(run: RunFolder, split: Split, seeds: tuple[int, ...]) -> list[dict[str, Any]]:
    """What was noted of each fold, in order."""
    return [read_json(run.fold_path(f, s).with_suffix(".json")) for s in seeds for f in split.folds]


@contextmanager
def measured(facts: dict[str, Any]) -> Iterator[None]:
    """Put wall seconds, CPU seconds and this process's peak memory (MiB) of the block into ``facts``."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    facts["seconds"] = round(time.perf_counter() - wall, 3)
    facts["cpu_seconds"] = round(time.process_time() - cpu, 3)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    facts["peak_mib"] = round(peak / (1024**2 if sys.platform == "darwin" else 1024))
