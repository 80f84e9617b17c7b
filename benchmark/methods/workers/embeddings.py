"""Tables of embeddings: what a network makes of crops, averaged to fields, wells and treatments.

A field is the mean over its crops, a well the mean over its fields (so each field counts alike, however many cells it
has, as in the frozen arm), a treatment the median over its wells (as for NSC). All wells with crops are there: training
and test wells, dose series, and negative controls, which corrections are fitted on. Labels are those of the assay,
whatever a network learnt. Embeddings are of the plain network: one view of each crop, without dropout, and of several
snapshots of the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from benchmark.base.errors import MorphobenchError
from benchmark.base.files import write_parquet
from benchmark.base.tables import CONTROL, FIELD_KEY, PLATE, WELL
from benchmark.methods.base import EmbeddingUnit
from benchmark.methods.workers.runs import RunFolder
from benchmark.profiles.averages import treatment_medians, well_means
from benchmark.profiles.wells import feature_columns


def embedding_path(beside: Path, unit: EmbeddingUnit) -> Path:
    """The file with embeddings of a unit, beside a prediction file."""
    return beside.with_name(f"{beside.stem}-embeddings-{unit}.parquet")


def frozen_beside(run: RunFolder) -> Path:
    """What embeddings of a frozen network lie beside: they depend on neither fold nor seed."""
    return run.path / "all-folds.parquet"


def write_units(beside: Path, fields: pd.DataFrame, units: Sequence[EmbeddingUnit]) -> None:
    """Write embeddings of fields, wells and treatments, those that are asked for.

    Parameters
    ----------
    beside : Path
        Prediction file; see `embedding_path`.
    fields : DataFrame
        As `benchmark.networks.embed.field_embeddings` makes it.
    """
    wells = well_means(fields)
    tables = {"field": lambda: fields, "well": lambda: wells, "treatment": lambda: treatment_medians(wells, [CONTROL])}
    for unit in units:
        if unit in tables:
            write_parquet(embedding_path(beside, unit), tables[unit]())


def read_wells(path: Path) -> pd.DataFrame:
    """Features of wells from a file of embeddings or of a network's features by field; float64.

    Raises
    ------
    MorphobenchError
        A number is not finite: the network's training went astray, and nothing of it should be filled in.
    """
    table = pd.read_parquet(path)
    wrong = ~np.isfinite(table[feature_columns(table)].to_numpy(np.float64)).all(axis=1)
    if wrong.any():
        first = table[wrong].iloc[0]
        raise MorphobenchError(f"{int(wrong.sum())} of {len(table)} embeddings are not finite numbers, those of plate "
                               f"{first[PLATE]}, well {first[WELL]} the first", str(path),
                               "Train the network with a lower learning rate, or take the method out.")
    table = well_means(table) if set(FIELD_KEY) <= set(table.columns) else table
    return table.astype(dict.fromkeys(feature_columns(table), np.float64))
