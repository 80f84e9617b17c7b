"""Predictions of a study as a small table, and a comparison of two such tables.

    python tests/golden/predictions.py table runs/demo-golden > tests/golden/demo.csv
    python tests/golden/predictions.py compare tests/golden/demo.csv runs/demo-golden

A table has one row a predicted unit: method, seed, fold, unit and its keys, then the decision and its probability to
six digits. Both tables of a comparison come from one machine, with the same number of jobs and threads: another
processor or number of threads rounds differently, which fine-tuning and CellProfiler's measurements carry on.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

KEYS = ["method", "seed", "fold", "unit", "Metadata_Compound", "Metadata_Concentration", "Metadata_CellLine",
        "Metadata_Plate", "Metadata_Well", "Metadata_Site", "crop"]


def table_of(study: Path) -> pd.DataFrame:
    """The decisions of all runs below ``runs/<study>``, sorted by their keys.

    Raises
    ------
    ValueError
        A method has several run folders, so that it is not plain which is meant.
    """
    tables = []
    for config in sorted(study.glob("*/*/config.json")):
        folder = config.parent
        if folder.parent.name == "grid":
            continue
        if len(list(folder.parent.glob("*/config.json"))) > 1:
            raise ValueError(f"{folder.parent} holds several runs")
        for path in sorted(folder.glob("seed*.parquet")):
            if path.stem.endswith("-response"):
                continue
            table = pd.read_parquet(path)
            if "unit" not in table:
                continue  # embeddings lie beside predictions
            p = table[[c for c in table if c.startswith("p_")]]
            kept = table[[c for c in KEYS if c in table]].astype(str)
            tables.append(kept.assign(decision=p.idxmax(axis=1).str.removeprefix("p_"),
                                      probability=p.max(axis=1).map("{:.6f}".format)))
    rows = pd.concat(tables, ignore_index=True).reindex(columns=[*KEYS, "decision", "probability"])
    rows = rows.astype(object).where(rows.notna(), "").astype(str)
    return rows.sort_values(KEYS, kind="stable").reset_index(drop=True)


def read(source: Path) -> pd.DataFrame:
    """A table from its CSV file, or made from a study's run folder."""
    return table_of(source) if source.is_dir() else pd.read_csv(source, dtype=str, keep_default_na=False)


def differences(one: pd.DataFrame, other: pd.DataFrame) -> tuple[pd.DataFrame, int, float]:
    """Rows of two tables that differ by more than the last digit, the number of decisions that do, the largest gap.

    A row that one of the tables lacks counts as another decision.
    """
    both = one.merge(other, on=KEYS, how="outer", suffixes=("", "_other"), indicator=True, validate="one_to_one")
    p, q = (pd.to_numeric(both[c], errors="coerce") for c in ("probability", "probability_other"))
    apart = (p - q).abs()
    decided = both["decision"] != both["decision_other"]
    return both[decided | ~(apart <= 1.5e-6)], int(decided.sum()), float(apart.max())


def main(arguments: list[str]) -> int:
    """Exit status 0 where two tables agree, 1 where they differ, 2 where the arguments are off."""
    if arguments[:1] == ["table"] and len(arguments) == 2:
        read(Path(arguments[1])).to_csv(sys.stdout, index=False)
        return 0
    if arguments[:1] != ["compare"] or len(arguments) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    one, other = (read(Path(a)) for a in arguments[1:])
    differing, decisions, largest = differences(one, other)
    print(f"{len(one)} and {len(other)} rows; {decisions} decisions differ, {len(differing)} rows differ, "
          f"probabilities by {largest:.6f} at most")
    if len(differing):
        print(differing.head(20).to_string(index=False))
    return int(len(differing) > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
