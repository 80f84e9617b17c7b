"""BBBC021v1: MCF7 cells under 113 compounds, stained for DNA, tubulin and actin (Caie et al. 2010).

The official CSV files say what is in each field and which treatments have a mechanism of action. Counted on them:

=============================================  ======  =====  ==========  =========
fields                                         fields  wells  treatments  compounds
=============================================  ======  =====  ==========  =========
all                                            13,200  3,300                    113
with a mechanism, every taxol well              2,528    632         103         38
with a mechanism, taxol as Kensert et al.       1,208    302         103         38
DMSO (negative control, on all 55 plates)       1,320    330
=============================================  ======  =====  ==========  =========

So 3,848 fields are labelled in the CSV files, DMSO and every taxol well included (``taxol: all``), and 2,528 are
left where taxol is taken as Kensert et al. 2019 take it (``taxol: kensert2019``, the default). Odd spellings of
compounds (``cyclohexamide``) stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field

from benchmark.assays.bbbc.literature import literature
from benchmark.assays.bbbc.official import collection_root, fetch_hint, has_official, lock_of, read_official
from benchmark.assays.columns import expand
from benchmark.assays.faults import gathering, refuse
from benchmark.assays.fetching.collections import PLATE_NAME
from benchmark.assays.fieldtable import Assay, first_sites, make_assay
from benchmark.assays.registry import ASSAYS, AssaySettings, Place, Published
from benchmark.base.errors import Fault, FaultsError, MorphobenchError, sheet_row
from benchmark.base.tables import (
    BATCH,
    COMPOUND,
    CONCENTRATION,
    CONTROL,
    LABEL,
    PLATE,
    REPLICATE,
    SITE,
    TREATMENT_KEY,
    WELL,
    WELL_KEY,
    path_column,
    plane_column,
)

#: Channel → its name in the CSV, in the order of the paper's crops.
CHANNELS = {"DNA": "DAPI", "Tubulin": "Tubulin", "Actin": "Actin"}
IMAGE, MOA, COMPOUND_TABLE = "BBBC021_v1_image", "BBBC021_v1_moa", "BBBC021_v1_compound"
DMSO, TAXOL = "DMSO", "taxol"
PLATE_COLUMN, WELL_COLUMN = "Image_Metadata_Plate_DAPI", "Image_Metadata_Well_DAPI"
COMPOUND_COLUMN, CONCENTRATION_COLUMN = "Image_Metadata_Compound", "Image_Metadata_Concentration"
#: A file's name in an archive: never a path.
_FILE = r"[A-Za-z0-9][A-Za-z0-9_.() -]*\.tiff?"
#: Taxol wells of the paper: concentrations in µM, as `dose_key` writes them.
PAPER_TAXOL = frozenset({"0.3", "1", "3"})
SOURCE = (
    "BBBC021v1 (Caie et al. 2010, Mol Cancer Ther 9:1913; mechanisms of action by Ljosa et al. 2013, J Biomol Screen "
    "18:1321), Broad Bioimage Benchmark Collection (Ljosa et al. 2012, Nat Methods 9:637). Images copyright "
    "AstraZeneca Pharmaceuticals, CC BY 4.0 (idr0035)."
)
TaxolRule = Literal["kensert2019", "all"]


@ASSAYS.register
class Bbbc021AssaySettings(AssaySettings):
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

    @property
    def lone_labels(self) -> Literal["refuse", "leave_out"]:
        """As ``single_compound_labels`` states."""
        return self.single_compound_labels

    def published(self) -> tuple[Published, ...]:
        """Published results on the images of BBBC021."""
        return literature(imaged=True)

    def load(self, place: Place) -> Assay:
        """Load the images of BBBC021; see `load_bbbc021`."""
        return load_bbbc021(self, place.name, place.base)


def load_bbbc021(settings: Bbbc021AssaySettings, name: str, base: Path) -> Assay:
    """BBBC021 in the official layout, wherever its images lie.

    Parameters
    ----------
    settings : Bbbc021AssaySettings
        The ``assay:`` block of the study.
    name : str
        Name of the assay.
    base : Path
        Folder of the study file; relative paths start there.

    Returns
    -------
    Assay
        Channels DNA, Tubulin, Actin; batch = week; concentrations in µM; DMSO the negative control.

    Raises
    ------
    MorphobenchError, FaultsError
        CSV files or plates are missing (the remedy says how to fetch them), or the CSV files are not as published.
    """
    root = collection_root(settings.root, "bbbc021", base)
    images, moa = read_metadata(metadata_folder(settings.metadata, root, base), root)
    table, left_out = select(images, moa, settings.taxol, settings.compounds)
    table = first_sites(_chosen_plates(table, settings.plates), settings.fields_per_well)
    folders = locate_plates(root, table)
    for channel in CHANNELS:
        table[path_column(channel)] = table[PLATE].map(folders) + "/" + table[f"File_{channel}"]
        table[plane_column(channel)] = 0
    return make_assay(name, root, table, list(CHANNELS), source=SOURCE, lock=lock_of(root), left_out=left_out,
                      single_compound_labels=settings.single_compound_labels,
                      unlabelled="keep" if settings.compounds == "all" else "refuse")


def metadata_folder(given: str | None, root: Path, base: Path) -> Path:
    """Folder of the official CSV files: as given, else the root, else ``bbbc021_metadata`` beside it."""
    if given is not None:
        return expand(given, base)
    beside = root.parent / "bbbc021_metadata"
    return beside if has_official(beside, IMAGE) and not has_official(root, IMAGE) else root


def read_metadata(folder: Path, root: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The official CSV files, checked.

    Parameters
    ----------
    folder : Path
        Holds ``BBBC021_v1_image`` and ``BBBC021_v1_moa`` (.csv or .csv.gz); where ``BBBC021_v1_compound`` is there
        too, compounds are checked against it.
    root : Path
        Of the images, for the remedy.

    Returns
    -------
    images : DataFrame
        One row per field: the field table's keys, compound, concentration (µM), and ``File_<channel>``; index: row of
        the CSV, from 0.
    moa : DataFrame
        One row per treatment with a mechanism: compound, concentration, label. DMSO is not among them.

    Raises
    ------
    FaultsError
        Files are missing or cannot be read, or rows cannot be used; all of either are listed.
    """
    hint = fetch_hint("bbbc021", root)
    files = [f"Image_FileName_{c}" for c in CHANNELS.values()]
    names = None
    faults: list[Fault] = []
    with gathering(faults):
        cells, where = read_official(folder, IMAGE, [PLATE_COLUMN, WELL_COLUMN, "Replicate", COMPOUND_COLUMN,
                                                     CONCENTRATION_COLUMN, *files], hint)
    with gathering(faults):
        treatments, moa_name = read_official(folder, MOA, ["compound", "concentration", "moa"], hint)
    with gathering(faults):
        if has_official(folder, COMPOUND_TABLE):
            names = set(read_official(folder, COMPOUND_TABLE, ["compound"], hint)[0]["compound"])
    refuse(faults, f"The CSV files of BBBC021 in {folder} cannot be read:")
    images = pd.DataFrame({
        BATCH: cells[PLATE_COLUMN].str.extract(r"^(Week\d+)_")[0], PLATE: cells[PLATE_COLUMN],
        WELL: cells[WELL_COLUMN], SITE: cells[files[0]].str.extract(r"_s(\d{1,3})_")[0], REPLICATE: cells["Replicate"],
        COMPOUND: cells[COMPOUND_COLUMN], CONCENTRATION: _micromolar(cells[CONCENTRATION_COLUMN]),
        **{f"File_{channel}": cells[f"Image_FileName_{c}"] for channel, c in CHANNELS.items()}})
    moa = pd.DataFrame({COMPOUND: treatments["compound"], CONCENTRATION: _micromolar(treatments["concentration"]),
                        LABEL: treatments["moa"]})
    faults = _image_faults(images, cells, names, where) + _moa_faults(moa, treatments, moa_name)
    refuse(faults, f"The CSV files of BBBC021 in {folder} have {len(faults)} fault(s):")
    images = images.astype({SITE: "int64", REPLICATE: "int64"})
    return images, moa[moa[COMPOUND] != DMSO].reset_index(drop=True)


def _micromolar(texts: pd.Series) -> pd.Series:
    """Concentrations at six significant digits, so that one treatment has one number in every file; NaN for none."""
    numbers = pd.to_numeric(texts, errors="coerce")
    return numbers.map(lambda x: float(f"{x:.6g}") if np.isfinite(x) and x >= 0 else np.nan).astype(float)


def dose_key(concentration: float) -> str:
    """A concentration (µM) as text by which files are joined: floats are not compared for equality."""
    return f"{concentration:.6g}"


def _image_faults(images: pd.DataFrame, cells: pd.DataFrame, names: set[str] | None, where: str) -> list[Fault]:
    """Rows of the image CSV that cannot be used, one fault per row and column."""
    checks = [
        (~images[PLATE].str.fullmatch(PLATE_NAME.pattern), PLATE_COLUMN, "not a plate such as Week1_22123"),
        (~images[WELL].str.fullmatch(r"[A-P]\d{2}"), WELL_COLUMN, "not a well such as B02"),
        (~images[REPLICATE].str.fullmatch(r"\d{1,3}"), "Replicate", "not a whole number"),
        (images[COMPOUND] == "", COMPOUND_COLUMN, "not a compound"),
        (images[CONCENTRATION].isna(), CONCENTRATION_COLUMN, "not a concentration in µM"),
    ]
    if names is not None:
        checks.append((~images[COMPOUND].isin(names), COMPOUND_COLUMN, f"not in {COMPOUND_TABLE}.csv"))
    for channel, c in CHANNELS.items():
        name = images[f"File_{channel}"]
        checks.append((~name.str.fullmatch(_FILE), f"Image_FileName_{c}", "not the plain name of a TIFF"))
        site = name.str.extract(r"_s(\d{1,3})_")[0]
        checks.append((site.isna() | (site != images[SITE]), f"Image_FileName_{c}",
                       "without the site (_s1_) that the field's other channels have"))
    return [Fault(f"{column} is {cells[column][i]!r}, {why}", f"{where}, {sheet_row(i)}",
                  "Use the collection's own file, unchanged.")
            for wrong, column, why in checks for i in images.index[wrong]]


def _moa_faults(moa: pd.DataFrame, cells: pd.DataFrame, where: str) -> list[Fault]:
    """Rows of the mechanism CSV that cannot be used."""
    faults = [Fault(f"concentration is {cells['concentration'][i]!r}, not a number in µM", f"{where}, {sheet_row(i)}")
              for i in moa.index[moa[CONCENTRATION].isna()]]
    faults += [Fault("the compound or its mechanism is empty", f"{where}, {sheet_row(i)}")
               for i in moa.index[(moa[COMPOUND] == "") | (moa[LABEL] == "")]]
    keys = moa.assign(key=moa[CONCENTRATION].map(dose_key))
    return faults + [Fault(f"{moa[COMPOUND][i]} at {keys['key'][i]} µM appears twice", f"{where}, {sheet_row(i)}")
                     for i in moa.index[keys.duplicated([COMPOUND, "key"])]]


def select(
    images: pd.DataFrame, moa: pd.DataFrame, taxol: TaxolRule, compounds: Literal["labelled", "all"]
) -> tuple[pd.DataFrame, list[Fault]]:
    """Give fields their mechanism and keep those that are wanted.

    A field's label is that of its compound at its concentration. DMSO is the negative control, without a label.

    Parameters
    ----------
    images, moa : DataFrame
        From `read_metadata`.
    taxol : {'kensert2019', 'all'}
        ``kensert2019``: of taxol only wells D0x of Week1 plates at 0.3, 1 and 3 µM, as the code of Kensert et al.
        2019 has it (``generate_dataset_bbbc021.py``); other taxol wells are left out. ``all``: every taxol well;
        those at 0.3 µM outside Week1's dose series are the plates' positive controls.
    compounds : {'labelled', 'all'}
        ``labelled``: fields with a label, and DMSO. ``all``: the others too, without a label.

    Returns
    -------
    table : DataFrame
        ``images`` with label and control, minus what is left out.
    left_out : list of Fault
        What is left out, and why, in numbers.
    """
    keys = images[CONCENTRATION].map(dose_key)
    mechanisms = dict(zip(zip(moa[COMPOUND], moa[CONCENTRATION].map(dose_key), strict=True), moa[LABEL], strict=True))
    table = images.copy()
    table[LABEL] = [mechanisms.get(key, "") for key in zip(table[COMPOUND], keys, strict=True)]
    is_taxol = table[COMPOUND] == TAXOL
    paper = table[PLATE].str.startswith("Week1_") & table[WELL].str.startswith("D0") & keys.isin(PAPER_TAXOL)
    positive = is_taxol & ~paper & (keys == "0.3")
    table[CONTROL] = np.select([table[COMPOUND] == DMSO, positive], ["negative", "positive"], "")
    left_out = []
    if taxol == "kensert2019":
        gone = is_taxol & ~paper
        if gone.any():
            left_out.append(Fault(f"{_count(table[gone])} of taxol left out: as Kensert et al. 2019, only wells D0x of "
                                  "Week1 plates at 0.3, 1 and 3 µM are kept"))
        table = table[~gone]
    if compounds == "labelled":
        gone = (table[LABEL] == "") & (table[CONTROL] != "negative")
        if gone.any():
            left_out.append(Fault(f"{_count(table[gone])} left out: no mechanism is given for their compound at "
                                  "their concentration"))
        table = table[~gone]
    return table, left_out


def _count(table: pd.DataFrame) -> str:
    treatments = len(table.drop_duplicates([c for c in TREATMENT_KEY if c in table]))
    return f"{len(table)} fields ({len(table.drop_duplicates(WELL_KEY))} wells, {treatments} treatments)"


def _chosen_plates(table: pd.DataFrame, plates: tuple[str, ...]) -> pd.DataFrame:
    known = sorted(table[PLATE].unique())
    faults = []
    for plate in plates:
        if plate not in known:
            close = get_close_matches(plate, known, 1)
            faults.append(Fault(f"there is no plate {plate!r} with fields that are used", "assay.plates",
                                f"Did you mean {close[0]}?" if close else f"Plates are named like {known[0]}."))
    if faults:
        raise FaultsError(faults, f"assay.plates has {len(faults)} fault(s):")
    return table[table[PLATE].isin(plates)].copy() if plates else table.copy()


def locate_plates(root: Path, table: pd.DataFrame) -> Mapping[str, str]:
    """Folder of each plate, relative to the root: ``Week1_22123``, as archives unpack, or ``Week1/Week1_22123``.

    Where both exist, the one with more of the plate's files is used. Single files that are missing are left to
    the check of the images, which lists them.

    Raises
    ------
    MorphobenchError
        Plates have no image at all; all of them are listed, and how to fetch them.
    """
    folders, missing = {}, []
    for plate, rows in table.groupby(PLATE, sort=False):
        wanted = {name for channel in CHANNELS for name in rows[f"File_{channel}"]}
        present = {folder: len(wanted & _names(root / folder))
                 for folder in (str(plate), f"{str(plate).split('_')[0]}/{plate}")}
        best = max(present, key=lambda f: present[f])
        folders[str(plate)] = best
        if not present[best]:
            missing.append(str(plate))
    if not missing:
        return folders
    if len(missing) == len(folders):
        raise MorphobenchError(f"holds no images of BBBC021: none of its {len(folders)} plates is there", str(root),
                               fetch_hint("bbbc021", root, missing if len(missing) <= 10 else ()))
    dmso = sorted(p for p in missing if (table.loc[table[PLATE] == p, LABEL] == "").all())
    note = f" ({', '.join(dmso)} {'has' if len(dmso) == 1 else 'have'} no labelled well)" if dmso else ""
    raise MorphobenchError(f"holds no images of {len(missing)} of {len(folders)} plates: {', '.join(missing)}{note}",
                           str(root), f"{fetch_hint('bbbc021', root, missing)} Or name the plates to use in "
                           "assay.plates.")


def _names(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()} if folder.is_dir() else set()
