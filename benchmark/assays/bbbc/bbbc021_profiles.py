"""The published CellProfiler profiles of BBBC021, which come without images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import Field

from benchmark.assays.bbbc.bbbc021 import SOURCE, metadata_folder, read_metadata, select
from benchmark.assays.bbbc.literature import literature
from benchmark.assays.columns import expand
from benchmark.assays.fetching.collections import data_folder
from benchmark.assays.fieldtable import Assay, make_assay
from benchmark.assays.profiles.profile_file import PREFIXES, read_features, read_header
from benchmark.assays.profiles.profile_numbers import gaps
from benchmark.assays.profiles.profile_table import features_hash_of, join_wells, key_columns, well_index
from benchmark.assays.registry import ASSAYS, AssaySettings, Place, Published
from benchmark.base.errors import MorphobenchError
from benchmark.base.files import sha256_file
from benchmark.base.tables import CELL_LINE, WELL_COLUMNS, WELL_KEY

LJOSA = Path("bbbc021_profiles", "ljosa_jbiomolscreen_2013_per_well_mean.csv.gz")
LJOSA_SOURCE = (
    "Per-well means of CellProfiler features of BBBC021v1, published with Ljosa et al. 2013 (J Biomol Screen 18:1321); "
    "no images are used here. "
)


@ASSAYS.register
class Bbbc021ProfilesSettings(AssaySettings):
    """The published CellProfiler profiles of BBBC021 (Ljosa et al. 2013): per-well means, and no images."""

    kind: Literal["bbbc021-profiles"] = "bbbc021-profiles"
    profiles: str | None = Field(None, description="The CSV; by default bbbc021_profiles in the data folder.")
    metadata: str | None = Field(None, description="Folder of the official CSV files (.csv or .csv.gz).")

    def published(self) -> tuple[Published, ...]:
        """Published results on BBBC021, as they compare with these profiles."""
        return literature(imaged=False)

    def load(self, place: Place) -> Assay:
        """Load the published profiles of BBBC021; see `load_bbbc021_profiles`."""
        return load_bbbc021_profiles(self, place.name, place.base)


def load_bbbc021_profiles(settings: Bbbc021ProfilesSettings, name: str, base: Path) -> Assay:
    """The published profiles of BBBC021 as an assay: 302 treated wells and 330 of DMSO, one row each.

    They are the wells of the paper: of taxol the file holds only what ``taxol: kensert2019`` keeps.

    Parameters
    ----------
    settings, name, base
        As `load_profile_table`.

    Returns
    -------
    Assay
        Without channels; 38 compounds, 103 treatments, 12 mechanisms.

    Raises
    ------
    MorphobenchError, FaultsError
        The profiles or the official CSV files are missing or are not as published.
    """
    path = expand(settings.profiles, base) if settings.profiles is not None else data_folder() / LJOSA
    if not path.is_file():
        raise MorphobenchError("does not exist", str(path), "The profiles are supplementary material of Ljosa et al. "
                               "2013 (J Biomol Screen 18:1321); put them there, or set assay.profiles in the study.")
    root = data_folder() / "bbbc021"
    images, moa = read_metadata(metadata_folder(settings.metadata, root, base), root)
    table, _ = select(images, moa, "kensert2019", "labelled")
    wells = table.assign(**{CELL_LINE: ""})[WELL_COLUMNS].drop_duplicates(WELL_KEY)
    header = read_header(path, ",")
    plate, well = key_columns([None, None], header, path)
    features, notes, losses = read_features(path, ",", header, plate, well, PREFIXES)
    # Wells of the screen that are not part of the question are no mistake of the file.
    every = images.drop_duplicates(WELL_KEY)
    aside = every[~well_index(every).isin(well_index(wells))]
    wells, features, notes = join_wells(
        name, path, wells, features, notes, aside, "no mechanism is given for their treatment, or they hold taxol and "
        "are not those of the paper", losses)
    losses = [replace(loss, asked=True) for loss in losses]  # the file is as published
    said, more = gaps(features, path.name)
    return make_assay(name, path.parent, wells, (), source=LJOSA_SOURCE + SOURCE, features=features,
                      features_hash=features_hash_of(sha256_file(path), features), left_out=[*notes, *said],
                      losses=[*losses, *more])
