"""Bad files of finished folds, as a report reads them (`read_run`, `fold_facts`)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from bad_input import Case, each, reader_refuses

from benchmark.base.tables import BATCH, COMPOUND, CONCENTRATION, CONTROL, LABEL, PLATE, REPLICATE, WELL
from benchmark.folds.fold import Fold, Split
from benchmark.methods.workers.runs import RunFolder, fold_facts, read_run

FOLDS = tuple(Fold(c, (("P", f"A0{i}"),), (("P", f"A0{1 - i}"),)) for i, c in enumerate(("c0", "c1")))
SPLIT = Split("leave-one-compound-out", "h" * 16, FOLDS, (), ())
FACTS = {"seconds": 1.0, "peak_mib": 10, "device": "cpu"}


def predictions(number: int) -> pd.DataFrame:
    """Of one well."""
    return pd.DataFrame([{
        BATCH: "1", PLATE: "P", WELL: f"A0{number}", REPLICATE: 1, COMPOUND: f"c{number}", CONCENTRATION: 1.0,
        LABEL: "xy"[number], CONTROL: "", "unit": "well", "method": "m", "fold": f"c{number}", "seed": 1,
        "p_x": 0.75, "p_y": 0.25}])


def run_folder(spoil: Callable[[Path, Path], Any]):
    """Draws the folder of a run; its second fold is spoilt: the prediction file, and the facts beside it."""
    def draw(folder: Path) -> RunFolder:
        run = RunFolder(folder, {})
        for number, fold in enumerate(FOLDS):
            path = run.fold_path(fold, 1)
            predictions(number).to_parquet(path, index=False)
            path.with_suffix(".json").write_text(json.dumps(FACTS))
        spoil(path, path.with_suffix(".json"))
        return run
    return draw


def table(**columns: Any):
    """The second fold with other columns."""
    return run_folder(lambda path, _: predictions(1).assign(**columns).to_parquet(path, index=False))


def without(column: str):
    return run_folder(lambda path, _: predictions(1).drop(columns=column).to_parquet(path, index=False))


def raw(content: bytes):
    return run_folder(lambda path, _: path.write_bytes(content))


def cut_off(path: Path, _: Path) -> None:
    path.write_bytes(path.read_bytes()[:-50])


HERE, AGAIN = r"seed1-c1-\w+\.parquet: ", "Delete it .*run.*again"
CASES = [
    Case("empty", raw(b""), f"{HERE}cannot be read.*{AGAIN}"),
    Case("cut off", run_folder(cut_off), f"{HERE}cannot be read.*{AGAIN}"),
    Case("text", raw(b"p_x,p_y\n"), f"{HERE}cannot be read.*{AGAIN}"),
    Case("a pickle", run_folder(lambda path, _: predictions(1).to_pickle(path)), f"{HERE}cannot be read.*{AGAIN}"),
    Case("missing", run_folder(lambda path, _: path.unlink()), r"fold 'c1' of .*: is not there.*run the study again"),
    Case("no rows", run_folder(lambda path, _: predictions(1).iloc[:0].to_parquet(path)),
         f"{HERE}has no rows.*{AGAIN}"),
    Case("sums of 1.2", table(p_x=0.95), f"{HERE}.*do not sum to 1. {AGAIN}"),
    Case("NaN", table(p_x=np.nan), f"{HERE}.*not finite.*{AGAIN}"),
    Case("infinity", table(p_x=np.inf), f"{HERE}.*not finite.*{AGAIN}"),
    Case("a negative probability", table(p_x=-0.5, p_y=1.5), f"{HERE}has probabilities.*{AGAIN}"),
    Case("probabilities as text", table(p_x="0.75"), f"{HERE}.*no floating-point numbers .p_x.*{AGAIN}"),
    Case("probabilities as truths", table(p_x=True, p_y=False), f"{HERE}.*no floating-point numbers.*{AGAIN}"),
    Case("one label", without("p_y"), f"{HERE}needs two or more.*{AGAIN}"),
    Case("no label", table(**{LABEL: None}), f"{HERE}has rows without a value in Metadata_Label.*{AGAIN}"),
    Case("a label that nobody can predict", table(**{LABEL: "z"}), f"{HERE}has no probability column.*'z'.*{AGAIN}"),
    Case("a label that is a number", table(**{LABEL: 1.0}), f"{HERE}has no probability column.*{AGAIN}"),
    Case("no compound", table(**{COMPOUND: None}), f"{HERE}has rows without a value in Metadata_Compound.*{AGAIN}"),
    Case("no dose", table(**{CONCENTRATION: np.nan}),
         f"{HERE}has rows without a value in Metadata_Concentration.*{AGAIN}"),
    Case("no column of wells", without(WELL), f"{HERE}lacks the columns Metadata_Well.*{AGAIN}"),
    Case("no unit", table(unit=None), f"{HERE}has rows without a value in unit.*{AGAIN}"),
    Case("an unknown unit", table(unit="plate"), f"{HERE}has the unit 'plate'.*{AGAIN}"),
    Case("a well twice in a file", run_folder(lambda path, _: pd.concat([predictions(1)] * 2).to_parquet(path)),
         f"{HERE}predicts a well twice.*{AGAIN}"),
    Case("a well in two files", table(**{WELL: "A00"}), f"predicts a well twice.*{AGAIN}"),
]


@pytest.mark.parametrize("case", each(CASES))
def test_bad_predictions_are_refused(tmp_path, case):
    run = case.draw(tmp_path)
    reader_refuses(tmp_path, case.says, lambda: read_run(run, SPLIT, (1,)))


FACT_CASES = [
    Case("empty", run_folder(lambda _, facts: facts.write_bytes(b"")), r"seed1-c1-\w+\.json: is not valid JSON.*again"),
    Case("binary", run_folder(lambda _, facts: facts.write_bytes(b"\xff\xfe")), r"\.json: is not valid JSON.*again"),
    Case("a list", run_folder(lambda _, facts: facts.write_text("[]")),
         r"\.json: lacks device, peak_mib, seconds.*again"),
    Case("no seconds", run_folder(lambda _, facts: facts.write_text('{"device": "cpu", "peak_mib": 1}')),
         r"\.json: lacks seconds. Delete it and the fold's prediction file"),
]


@pytest.mark.parametrize("case", each(FACT_CASES))
def test_bad_facts_of_a_fold_are_refused(tmp_path, case):
    run = case.draw(tmp_path)
    reader_refuses(tmp_path, case.says, lambda: fold_facts(run, SPLIT, (1,)))


def test_sound_predictions_are_read(tmp_path):
    run = run_folder(lambda path, facts: None)(tmp_path)
    assert len(read_run(run, SPLIT, (1,))) == 2 and [f.seconds for f in fold_facts(run, SPLIT, (1,))] == [1.0, 1.0]
