"""A tiny drawn study gives the predictions that it gave before: every decision, and probabilities to the fourth digit.

`tiny.csv` was made by the code before its modules moved into rooms; `predictions.py` makes a table anew, openly,
where a change is meant to change predictions.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
from drawn_study import COLUMNS, LDA, drawn_profiles, prepared, run_arm, run_dependents
from yaml import safe_dump

sys.path.insert(0, str(Path(__file__).parent))
from predictions import KEYS, read, table_of

METHODS = [
    {"name": "a", "kind": "profile", "classifier": LDA,
     "profile": {"normalise": "training", "select": ["missing"], "features": ["Cells_A*"]}},
    {"name": "b", "kind": "profile", "classifier": LDA,
     "profile": {"normalise": "plate"}},
    {"name": "nearest", "kind": "profile", "decision": "nearest", "profile": {"normalise": "training"}},
    {"name": "position", "kind": "baseline", "feature": "position"},
    {"name": "fused", "kind": "fusion", "parts": ["a", "b"]},
    {"name": "joined", "kind": "fusion", "parts": ["a", "b"], "how": "concatenated", "classifier": LDA},
    {"name": "permuted", "kind": "profile", "classifier": LDA, "profile": {"normalise": "training"},
     "labels": "permuted"},
]


def write_study(folder: Path) -> str:
    """The study's file; its profiles are drawn beside it."""
    table = drawn_profiles(effect=2.0)
    table["well"] = [f"{row}{column:02d}" for row in "ABC" for column in range(1, 7)]
    table.to_parquet(folder / "profiles.parquet")
    assay = {"kind": "profile_table", "profiles": "profiles.parquet", "columns": COLUMNS}
    (folder / "tiny.yaml").write_text(safe_dump({"name": "tiny", "assay": assay, "methods": METHODS}))
    return str(folder / "tiny.yaml")


def test_a_tiny_study_predicts_what_it_did(tmp_path, monkeypatch):
    write_study(tmp_path)
    monkeypatch.chdir(tmp_path)
    context = prepared("tiny.yaml")
    run_dependents(context, run_arm(context, "classical"))
    now, before = table_of(tmp_path / "runs" / "tiny"), read(Path(__file__).with_name("tiny.csv"))
    pd.testing.assert_frame_equal(now[[*KEYS, "decision"]], before[[*KEYS, "decision"]])
    gaps = (now["probability"].astype(float) - before["probability"].astype(float)).abs()
    assert gaps.max() < 1e-4


if __name__ == "__main__":
    write_study(Path(sys.argv[1]))
