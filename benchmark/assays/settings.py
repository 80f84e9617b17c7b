"""The ``assay:`` block of a study file."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from benchmark.assays.fieldtable import CHANNEL_NAME
from benchmark.base.settings import Settings

Key = Literal["batch", "plate", "well", "site", "replicate", "compound", "concentration", "label", "cell_line"]
REQUIRED: tuple[Key, ...] = ("plate", "well", "compound", "concentration", "label")


class DemoAssaySettings(Settings):
    """The simulated assay: what it holds and how hard it is.

    Each plate carries every treatment (mechanism × compound × concentration) ``replicates`` times and
    ``negative_wells`` wells of DMSO.
    """

    kind: Literal["demo"] = "demo"
    seed: int = Field(1, ge=0, description="Everything drawn follows from it.")
    difficulty: float = Field(1.0, gt=0, le=10, description="0.5 is easier, 2 harder: weaker effects, more noise.")
    size: int = Field(256, ge=64, le=2048, description="Height and width of a field in pixels.")
    cells: float = Field(30, ge=2, le=500, description="Mean number of cells in an untreated field.")
    mechanisms: int = Field(4, ge=2, le=4)
    compounds_per_mechanism: int = Field(3, ge=2, le=8)
    concentrations: int = Field(2, ge=1, le=4)
    batches: int = Field(2, ge=1, le=6)
    plates_per_batch: int = Field(2, ge=1, le=6)
    replicates: int = Field(1, ge=1, le=4, description="Wells of each treatment on each plate.")
    negative_wells: int = Field(6, ge=0, le=32, description="Wells of DMSO on each plate.")
    fields_per_well: int = Field(2, ge=1, le=9)

    @model_validator(mode="after")
    def _fits_on_a_plate(self) -> DemoAssaySettings:
        if self.wells_per_plate > 384:
            raise ValueError(f"{self.wells_per_plate} wells a plate do not fit on a 384-well plate")
        return self

    @property
    def wells_per_plate(self) -> int:
        """Wells on each plate, controls included."""
        treatments = self.mechanisms * self.compounds_per_mechanism * self.concentrations
        return treatments * self.replicates + self.negative_wells


class ColumnRule(Settings):
    """Where a piece of metadata comes from: a column, part of a column, or one value for all rows."""

    column: str | None = Field(None, description="Column of the CSV.")
    pattern: str | None = Field(None, description="Regular expression with one group, searched in the column.")
    value: str | int | float | None = Field(None, description="One value for every row, instead of a column.")

    @model_validator(mode="after")
    def _one_source(self) -> ColumnRule:
        if (self.column is None) == (self.value is None):
            raise ValueError("give either `column` (with or without `pattern`) or `value`")
        if self.pattern is not None:
            if self.column is None:
                raise ValueError("`pattern` needs a `column` to look in")
            try:
                groups = re.compile(self.pattern).groups
            except re.error as error:
                raise ValueError(f"`pattern` is not a regular expression: {error}") from error
            if groups != 1:
                raise ValueError(f"`pattern` needs exactly one group in parentheses, and has {groups}")
        return self


class ChannelFile(Settings):
    """The image file of a channel, and which plane of it."""

    file: str = Field(min_length=1, description="Template: {Column} is a cell of the CSV, {row} the row from 0.")
    plane: int = Field(0, ge=0, description="Page of a stack, or channel of a colour image (red 0).")


class TableAssaySettings(Settings):
    """A user's own assay: a CSV with one row a field, and a folder of images."""

    kind: Literal["table"] = "table"
    csv: str = Field(min_length=1, description="Relative to the study file; ${VARIABLE} is expanded.")
    root: str | None = Field(None, description="Folder the file templates start from; by default the CSV's.")
    separator: Annotated[str, Field(min_length=1, max_length=1)] = ","
    columns: dict[Key, str | ColumnRule]
    channels: dict[str, ChannelFile] = Field(min_length=1)
    negative_controls: list[str] = Field([], description="Names of compounds that are untreated or DMSO.")
    positive_controls: list[str] = Field([], description="Names of compounds with a known strong effect.")
    single_compound_labels: Literal["refuse", "leave_out"] = "refuse"
    fields_per_well: int | None = Field(None, ge=1, description="Keep the first n sites of each well: a quick look.")
    source: str = Field("", description="A sentence for the report: where the images come from.")

    @field_validator("columns")
    @classmethod
    def _required_columns(cls, columns: dict[Key, str | ColumnRule]) -> dict[Key, str | ColumnRule]:
        missing = [key for key in REQUIRED if key not in columns]
        if missing:
            raise ValueError(f"lacks {', '.join(missing)}; required are {', '.join(REQUIRED)}")
        return columns

    @field_validator("channels")
    @classmethod
    def _plain_names(cls, channels: dict[str, ChannelFile]) -> dict[str, ChannelFile]:
        odd = [c for c in channels if not CHANNEL_NAME.fullmatch(c)]
        if odd:
            raise ValueError(f"{', '.join(odd)}: a channel's name is letters and digits, a letter first")
        return channels

    @model_validator(mode="after")
    def _one_kind_of_control(self) -> TableAssaySettings:
        both = sorted(set(self.negative_controls) & set(self.positive_controls))
        if both:
            raise ValueError(f"{', '.join(both)}: both a negative and a positive control")
        return self


class Bbbc021AssaySettings(Settings):
    """BBBC021v1: MCF7 cells, 113 compounds at 8 concentrations on 55 plates; 38 compounds have a mechanism.

    ``taxol: kensert2019`` keeps taxol as the authors of Kensert et al. 2019 do: on Week1 plates, in wells D0x, at
    0.3, 1 and 3 µM. ``all`` keeps every taxol well: 0.3 µM of it is the positive control of every plate.
    """

    kind: Literal["bbbc021"] = "bbbc021"
    root: str | None = Field(None, description="Folder with the plate folders; by default bbbc021 in the data folder.")
    metadata: str | None = Field(None, description="Folder of the official CSV files (.csv or .csv.gz).")
    taxol: Literal["kensert2019", "all"] = "kensert2019"
    compounds: Literal["labelled", "all"] = Field("labelled", description="all: 113 compounds, for unsupervised use.")
    plates: tuple[str, ...] = Field((), description="Only these plates; by default all.")
    single_compound_labels: Literal["refuse", "leave_out"] = Field("refuse", description="Chosen plates may need it.")
    fields_per_well: int | None = Field(None, ge=1, description="Keep the first n sites of each well: a quick look.")


class Bbbc014AssaySettings(Settings):
    """BBBC014v1: NFkB translocation under TNFa in two cell lines, one plate of 96 wells."""

    kind: Literal["bbbc014"] = "bbbc014"
    root: str | None = Field(None, description="Folder of the images or of BBBC014_v1_images; see bbbc021.")


class Bbbc013AssaySettings(Settings):
    """BBBC013v1: FKHR translocation under two inhibitors of PI3K, one plate of 96 wells."""

    kind: Literal["bbbc013"] = "bbbc013"
    root: str | None = Field(None, description="Folder of the images or of BBBC013_v1_images_bmp; see bbbc021.")


class Bbbc021ProfilesSettings(Settings):
    """The published CellProfiler profiles of BBBC021 (Ljosa et al. 2013): per-well means, and no images."""

    kind: Literal["bbbc021-profiles"] = "bbbc021-profiles"
    profiles: str | None = Field(None, description="The CSV; by default bbbc021_profiles in the data folder.")
    metadata: str | None = Field(None, description="Folder of the official CSV files (.csv or .csv.gz).")


ProfileKey = Literal["batch", "plate", "well", "replicate", "compound", "concentration", "label", "cell_line"]


class ProfileTableSettings(Settings):
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
    unlabelled: Literal["refuse", "keep", "leave_out"] = Field("refuse", description="Wells without a label that are "
                                                               "no control; kept ones are in no fold.")
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
