"""Where a fold's profiles come from; nothing heavy is loaded here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from benchmark.profiles.settings import ProfileSettings

#: Settings of a table that goes through no selection and no correction.
PLAIN = ProfileSettings(normalise="training")


@dataclass(frozen=True)
class ProfileSource:
    """Where a fold's profiles come from.

    Attributes
    ----------
    table : Path
        Parquet: profiles of all wells (controls among them), normalised per plate. Where profiles depend on the
        fold's training wells: the wells' metadata alone.
    cells : Path or None
        Folder of single cells (or a file of a profile table's rows), where profiles depend on the training wells.
    left_out : DataFrame or None
        Fields whose cells are not used.
    embedded : bool
        ``table`` has a network's embeddings of wells (or features of fields, whose means they are), not yet normalised.
    """

    table: Path
    profile: ProfileSettings
    cells: Path | None = None
    left_out: pd.DataFrame | None = field(default=None, compare=False)
    embedded: bool = False
