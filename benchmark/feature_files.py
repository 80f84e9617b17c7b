"""Tables of features on disk: written once, found again by every method that asks for the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from benchmark.files import write_parquet
from benchmark.opened import Opened
from benchmark.profiles.wells import feature_columns, without_cells
from benchmark.splits import rows_of
from benchmark.tables import WELL_KEY


def feature_files(
    opened: Opened, name: str, unit: str, build: Callable[[], pd.DataFrame], controls: bool = False
) -> tuple[Path, Path]:
    """Write a feature table and the list of predicted units that lack features, once.

    Parameters
    ----------
    controls : bool
        Keep rows that no fold tests (negative controls); else predicted units only.
    """
    features = opened.folder / "features" / f"{name}.parquet"
    absent = opened.folder / "features" / f"{name}-absent.parquet"
    kind, key = name.split("-", 1)
    opened.note(f"{kind} features", key)
    if not (features.exists() and absent.exists()):
        with opened.stage(f"{kind} features", key) as facts:
            table = build()
            # Of the assay and not of its folds: a scheme may test fewer wells than it trains on.
            wanted = tuple(opened.assay.predicted[WELL_KEY].drop_duplicates().itertuples(index=False, name=None))
            lacking = without_cells(table, opened.assay, unit)
            write_parquet(absent, lacking[rows_of(lacking, wanted)] if len(lacking) else lacking)
            if not controls:
                table = table[rows_of(table, wanted)].reset_index(drop=True)
            write_parquet(features, table)
            facts["detail"] = f"{len(table)} {unit}s x {len(feature_columns(table))} features"
    return features, absent
