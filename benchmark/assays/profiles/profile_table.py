"""A user's own measured profiles as an assay without images.

Forms that are read, as parquet, CSV or gzipped CSV (`benchmark.assays.profiles.profile_file`):

- pycytominer's: ``Metadata_Plate``, ``Metadata_Well``, features; one row per well;
- CytoTable's: ``Image_Metadata_Plate``, ``Image_Metadata_Well``, ``Metadata_ImageNumber``, features; one row a cell
  or a well;

and CellProfiler's own output, a folder of CSV files or a SQLite file (`benchmark.assays.profiles.cellprofiler_files`).

Which columns are features says `benchmark.cells.objects`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
from pydantic import Field, model_validator

from benchmark.assays.columns import expand, read_text_table
from benchmark.assays.faults import gathering, refuse
from benchmark.assays.fieldfaults import empty_faults
from benchmark.assays.fieldtable import Assay, make_assay
from benchmark.assays.metadata import (
    Metadata,
    control_faults,
    metadata_of,
    partly_unlabelled,
    rule_of,
)
from benchmark.assays.places import several
from benchmark.assays.profiles.cellprofiler_files import find_output, is_output, read_cells
from benchmark.assays.profiles.feature_columns import without_codes
from benchmark.assays.profiles.matching import (
    disagreeing,
    repeated_rows,
    rows_of_wells,
    spelt_otherwise,
    unknown_fault,
)
from benchmark.assays.profiles.profile_file import PREFIXES, read_features, read_header, read_text
from benchmark.assays.profiles.profile_numbers import gaps, known_by_well
from benchmark.assays.registry import ASSAYS, AssaySettings, Place
from benchmark.assays.settings import REQUIRED, ColumnRule, Doses, Unlabelled
from benchmark.base.account import Loss
from benchmark.base.errors import Fault, FaultsError, MorphobenchError
from benchmark.base.files import digest, sha256_file
from benchmark.base.tables import LABEL, SITE, WELL_KEY
from benchmark.cells.coverage import lacks_most

_PLATES = ("Metadata_Plate", "Image_Metadata_Plate")
_WELLS = ("Metadata_Well", "Image_Metadata_Well")
#: Raised when wells that lack values of some features are treated in another way.
GAPS = "wells lack values: 2"

ProfileKey = Literal["batch", "plate", "well", "replicate", "compound", "concentration", "label", "cell_line"]


@ASSAYS.register
class ProfileTableSettings(AssaySettings):
    """A user's own profiles, one or many rows a well: a table as CytoTable or pycytominer write it, or CellProfiler's
    own output (a folder with ExportToSpreadsheet's CSV files, or a SQLite file of ExportToDatabase).

    With ``metadata`` the ``columns`` name columns of that CSV, which is joined by plate and well; without it they
    name columns of the profile table, or of CellProfiler's table of images (with or without ``Image_``).
    """

    kind: Literal["profile_table"] = "profile_table"
    profiles: str = Field(min_length=1, description="Parquet, CSV (.gz), SQLite (.db, .sqlite, .sqlite3), or a folder "
                          "of CSV or SQLite files, or of such folders; relative to the study file.")
    metadata: str | None = Field(None, description="CSV (.gz) with what is in each well.")
    separator: Annotated[str, Field(min_length=1, max_length=1)] = ","
    columns: dict[ProfileKey, str | ColumnRule]
    plate_column: str | None = Field(None, description="In the profiles; by default Metadata_Plate and the like.")
    well_column: str | None = Field(None, description="In the profiles; by default Metadata_Well and the like.")
    prefixes: tuple[str, ...] | None = Field(None, description="What features start with. By default Cells_, "
                                             "Cytoplasm_ and Nuclei_, in CellProfiler's own output every kind of "
                                             "object. () takes every column that is neither metadata nor named in "
                                             "`columns`.")
    negative_controls: list[str] = Field([], description="Names of compounds that are untreated or DMSO.")
    positive_controls: list[str] = Field([], description="Names of compounds with a known strong effect.")
    unlabelled: Unlabelled = Field("refuse", description="Wells without a label that are no control; kept ones are in "
                                   "no fold. leave_out: wells that the metadata do not name as well.")
    doses: Doses = Field("nominal", description="Doses of a compound less than 5 % apart: one dose, or each its own.")
    single_compound_labels: Literal["refuse", "leave_out"] = "refuse"
    source: str = Field("", description="A sentence for the report: where the profiles come from.")

    @model_validator(mode="after")
    def _consistent(self) -> ProfileTableSettings:
        missing = [key for key in REQUIRED if key not in self.columns]
        if missing:
            raise ValueError(f"columns lacks {', '.join(missing)}; required are {', '.join(REQUIRED)}")
        both = sorted(set(self.negative_controls) & set(self.positive_controls))
        if both:
            raise ValueError(f"{', '.join(both)}: both a negative and a positive control")
        if self.metadata is None:
            keys = {k: self.columns[k] for k in ("plate", "well")}
            odd = [k for k, rule in keys.items() if not (isinstance(rule, str) or (rule.column and not rule.pattern))]
            if odd or self.plate_column or self.well_column:
                raise ValueError("without `metadata`, plate and well are columns of the profiles, named in `columns` "
                                 "alone and without a pattern")
        return self

    @property
    def lone_labels(self) -> Literal["refuse", "leave_out"]:
        """As ``single_compound_labels`` states."""
        return self.single_compound_labels

    def load(self, place: Place) -> Assay:
        """Load a table of profiles; see `load_profile_table`."""
        return load_profile_table(self, place.name, place.base)


def load_profile_table(settings: ProfileTableSettings, name: str, base: Path) -> Assay:
    """A user's own profiles as an assay.

    Parameters
    ----------
    settings : ProfileTableSettings
        The ``assay:`` block of the study.
    name : str
        Name of the assay.
    base : Path
        Folder of the study file; relative paths start there.

    Returns
    -------
    Assay
        Without channels; ``features`` holds plate, well and features, ``fields`` one row per well.

    Raises
    ------
    FaultsError
        With everything that is wrong: columns that are missing, repeated or not numeric, wells without metadata.
    """
    path = expand(settings.profiles, base)
    output = find_output(path, settings.separator) if is_output(path) else None
    header = output.columns if output else read_header(path, settings.separator)
    if settings.metadata is None:  # the profiles carry their metadata themselves
        _refuse_missing(settings, header, path, output is not None)
        given = [rule_of(settings.columns["plate"]).column, rule_of(settings.columns["well"]).column]
        used = {c for s in settings.columns.values() if (c := rule_of(s).column) is not None}
        named, where = [c for c in header if c in used], path.name
        cells = output.metadata(named) if output else read_text(path, settings.separator, named)
    else:
        given, used = [settings.plate_column, settings.well_column], set()
        plan = expand(settings.metadata, base)
        cells, where = read_text_table(plan, settings.separator), plan.name
    faults: list[Fault] = []
    with gathering(faults):
        wells, aside, metadata = _wells(settings, cells, where)
    with gathering(faults):
        plate, well = key_columns(given, header, path)
        prefixes = settings.prefixes
        features, notes, losses = read_cells(output, plate, well, prefixes) if output else read_features(
            path, settings.separator, header, plate, well, PREFIXES if prefixes is None else prefixes, used)
    if settings.metadata is None:  # both readers look at the columns of plates and wells
        faults = list({f.what if f.what.endswith(" is empty") else f: f for f in reversed(faults)}.values())[::-1]
    refuse(faults, f"The profiles of {name} have {len(faults)} fault(s):")
    why = f"they have no label ({metadata.origin.name(LABEL)} is empty) and are no control"
    notes = [*metadata.notes, *notes, *rows_of_wells(features, path.name)]
    wells, features, notes = join_wells(
        name, path, wells, features, notes, aside, why, losses,
        strange="leave_out" if settings.unlabelled == "leave_out" else "refuse")
    if output is None:
        features, said, more = without_codes(features, wells, settings.prefixes or (), path.name)
        notes, losses = [*notes, *said], [*losses, *more]
    said, more = gaps(features, path.name)
    sha256 = output.sha256 if output else sha256_file(path)
    return make_assay(name, path.parent, wells, (), source=settings.source, features=features,
                      features_hash=features_hash_of(sha256, features), left_out=[*said, *notes],
                      losses=[*losses, *more], origin=metadata.origin,
                      single_compound_labels=settings.single_compound_labels,
                      unlabelled="keep" if settings.unlabelled == "keep" else "refuse")


def features_hash_of(sha256: str, features: pd.DataFrame) -> str:
    """Hash of a file's content and of what was taken from it: other prefixes, or another rule of what counts as a
    feature, make other profiles of one file; so does another rule for wells that lack values, where there are any."""
    gap = [] if known_by_well(features).to_numpy().all() else [GAPS]
    return digest([sha256, [str(c) for c in features.columns], *gap], 64)


def well_index(table: pd.DataFrame) -> pd.MultiIndex:
    """Plate and well of each row."""
    return pd.MultiIndex.from_frame(table[WELL_KEY])


def join_wells(
    name: str, path: Path, wells: pd.DataFrame, features: pd.DataFrame, notes: list[Fault], aside: pd.DataFrame,
    why: str, losses: list[Loss], strange: Literal["refuse", "leave_out"] = "refuse",
) -> tuple[pd.DataFrame, pd.DataFrame, list[Fault]]:
    """Match wells and features by plate and well.

    Parameters
    ----------
    wells, features : DataFrame
        One row per well; one or many.
    aside : DataFrame
        Wells that are known and not wanted: their features go, with a note that says ``why``.
    losses : list of Loss
        What goes is added here, counted.
    strange : {'refuse', 'leave_out'}
        What to do with wells of the features that are not known at all. Those whose plate or well is only spelt in
        another way are always refused.

    Returns
    -------
    wells, features, notes
        As far as they go together; ``wells`` with the site 1.

    Raises
    ------
    FaultsError
        Features have wells that are not known, or two wells have the very same features.
    """
    total = well_index(features).nunique()
    dropped = well_index(features).isin(well_index(aside))
    if dropped.any():
        n = well_index(features[dropped]).nunique()
        notes = [*notes, Fault(f"{n} wells of {path.name} left out: {why}")]
        losses.append(Loss("wells", n, total, why, path.name, asked=True))
        features = features[~dropped]
    _refuse_copies(name, path, features)
    notes = [*notes, *repeated_rows(features, path.name)]
    known, have = well_index(wells), well_index(features)
    unknown = have[~have.isin(known)].unique()
    if len(unknown):
        fault = unknown_fault(path, unknown, known, total)
        if strange == "refuse" or not have.isin(known).any() or spelt_otherwise(unknown, known[~known.isin(have)]):
            raise FaultsError([fault], f"The profiles of {name} and their metadata do not fit together:")
        notes = [*notes, Fault(f"{len(unknown)} of {total} wells left out: the metadata do not name them "
                               f"({several([f'{p} {w}' for p, w in unknown])})", path.name)]
        losses.append(Loss("wells", len(unknown), total, "the metadata do not name them", path.name))
        features = features[~have.isin(unknown)]
        have = well_index(features)
    lacking = ~known.isin(have)
    if lacking.any():
        examples = ", ".join(f"{p} {w}" for p, w in known[lacking][:5])
        notes = [*notes, Fault(f"{int(lacking.sum())} wells of the metadata left out: {path.name} has no profile of "
                               f"them ({examples}{', …' if lacking.sum() > 5 else ''})")]
        losses.append(Loss("wells", int(lacking.sum()), len(known), f"{path.name} has no profile of them"))
    return wells[~lacking].assign(**{SITE: 1}), features.reset_index(drop=True), notes


def _refuse_copies(name: str, path: Path, features: pd.DataFrame) -> None:
    """Refuse two wells with the very same rows of features: a copy, or a join gone wrong, and each other's answer.

    The counterpart of one image under two wells. A single feature, or wells that lack most values, say nothing.
    """
    known = known_by_well(features)
    features = features[~well_index(features).isin(known.index[lacks_most(known.to_numpy())])]
    values = features.drop(columns=[c for c in features if str(c).startswith("Metadata_")])
    if values.shape[1] < 2:
        return
    rows = pd.util.hash_pandas_object(values, index=False).to_numpy()
    wells = pd.DataFrame({"plate": features[WELL_KEY[0]].to_numpy(), "well": features[WELL_KEY[1]].to_numpy(),
                          "rows": rows}).groupby(["plate", "well"], sort=False)["rows"].agg(["sum", "size", "max"])
    for _, same in wells[wells.duplicated(keep=False)].groupby(["sum", "size", "max"], sort=False):
        names = ", ".join(f"{p} {w}" for p, w in same.index[:5])
        raise FaultsError([Fault(f"{len(same)} wells have the very same features: {names}", path.name,
                                 "Give each well its own, or take the copies out.")],
                          f"The profiles of {name} hold one well under several names:")


def key_columns(given: Sequence[str | None], header: Sequence[str], path: Path) -> tuple[str, str]:
    """The columns with the plate and the well: as given, else by their usual names."""
    columns = []
    header = [c for c in header if c.removeprefix("Image_") not in header or not c.startswith("Image_") or c in given]
    for key, name, usual in zip(("plate", "well"), given, (_PLATES, _WELLS), strict=True):
        column = next((c for c in ([name] if name is not None else usual) if c in header), None)
        if column is None:
            near = [c for c in header if key in c.lower()][:5] or list(header[:5])
            raise MorphobenchError(f"has no column {name or ' or '.join(usual)}", str(path),
                                   f"Set assay.{key}_column to one of its columns ({', '.join(near)}, …).")
        columns.append(column)
    return columns[0], columns[1]


def _refuse_missing(settings: ProfileTableSettings, header: Sequence[str], path: Path, images: bool) -> None:
    """One error for all columns that the mapping names and the profiles (or their table of images) do not have."""
    wanted = dict.fromkeys(c for s in settings.columns.values() if (c := rule_of(s).column) is not None)
    missing = [c for c in wanted if c not in header]
    if not missing:
        return
    names = ", ".join(map(repr, missing))
    # Columns of images go by two names, with and without Image_.
    own = [c for c in header if not (images and c.startswith("Image_") and c.removeprefix("Image_") in header)]
    has = f"It has: {', '.join(map(repr, own[:20]))}{', …' if len(own) > 20 else ''}."
    lacks = f"has no column{'s' if len(missing) > 1 else ''} {names}, wanted in assay.columns"
    if images:
        raise FaultsError([Fault(
            f"the table of images {lacks}", path.name, f"{has} Name its own columns, or give what is in each well as "
            "a CSV in assay.metadata, and in assay.plate_column and assay.well_column the columns of the images with "
            "plate and well; where they have none, export them (CellProfiler's module Metadata).")],
            "The mapping of columns does not fit CellProfiler's output:")
    raise FaultsError([Fault(lacks, path.name, has)], "The mapping of columns does not fit the profiles:")


def _wells(
    settings: ProfileTableSettings, cells: pd.DataFrame, where: str
) -> tuple[pd.DataFrame, pd.DataFrame, Metadata]:
    """One row per well: metadata as the mapping says, and controls; those set aside; and all as read."""
    faults: list[Fault] = []
    missing = sorted({c for s in settings.columns.values() if (c := rule_of(s).column) is not None and c not in cells})
    if missing:
        raise FaultsError([Fault(f"has no column {c!r}, wanted in assay.columns", where,
                                 f"It has: {', '.join(map(repr, cells.columns[:12]))}.") for c in missing],
                          "The mapping of columns does not fit the metadata:")
    metadata = metadata_of(settings, cells, where, faults)
    table, out = metadata.table, metadata.aside
    faults += [*control_faults(settings, table, where), *partly_unlabelled(metadata)]
    rows = table.drop(index=sorted(metadata.bad | out))
    faults += empty_faults(rows, WELL_KEY, "rows", metadata.origin)
    wells = rows[(rows[WELL_KEY] != "").all(axis=1)].drop_duplicates()
    faults += disagreeing(wells, metadata.origin)
    if faults:
        raise FaultsError(faults, f"The metadata in {where} have {len(faults)} fault(s):")
    return wells, table.loc[sorted(out)].drop_duplicates(WELL_KEY), metadata
