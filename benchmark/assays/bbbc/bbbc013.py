"""BBBC013v1: inhibitors of PI3K send FKHR-EGFP from the cytoplasm to the nucleus of U2OS cells.

Active PI3K signals through Akt, which phosphorylates FKHR (FOXO1) and so keeps it out of the nucleus. Wortmannin
and LY294002 inhibit PI3K: FKHR-EGFP then collects in the nucleus. So a well of the positive control is labelled
``nuclear`` and a well without drug ``cytoplasmic``.

One plate of 96 wells, two compounds, four rows each. By the official plate maps:

- rows A–D, Wortmannin (nM): columns 1–2 without drug, columns 3–11 rising from 0.98 to 250, column 12 at 150, the
  positive control;
- rows E–H, LY294002 (µM): column 1 at 80, the positive control, column 2 without drug, columns 3–11 rising from
  0.31 to 80, column 12 empty (without drug).

So dose number 10 of the metadata is the positive control, which for Wortmannin is *below* dose number 9.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field

from benchmark.assays.bbbc.official import collection_root, fetch_hint, has_official, lock_of, read_official
from benchmark.assays.bbbc.translocation import ROWS, WELLS, find_platemap, plate_files, read_platemap
from benchmark.assays.faults import gathering, refuse
from benchmark.assays.fieldtable import Assay, make_assay
from benchmark.assays.registry import ASSAYS, AssaySettings, Place
from benchmark.base.errors import Fault, FaultsError, MorphobenchError, sheet_row
from benchmark.base.tables import BATCH, COMPOUND, CONCENTRATION, CONTROL, LABEL, PLATE, REPLICATE, SITE, WELL

CHANNELS = {1: "FKHR", 2: "DNA"}
IMAGES = "BBBC013_v1_images_bmp"
PLATEMAP = "BBBC013_v1_platemap_all.txt"
METADATA = "1049_Metadata"
COMPOUNDS = ("Wortmannin", "LY294002")
#: Dose number → concentration as the plate maps give it: nM, and µM. Number 10 is the positive control.
DOSES = {
    "Wortmannin": (0, 0.98, 1.95, 3.91, 7.81, 15.63, 31.25, 62.5, 125, 250, 150),
    "LY294002": (0, 0.31, 0.63, 1.25, 2.5, 5, 10, 20, 40, 80, 80),
}
MICROMOLAR = {"Wortmannin": 1e-3, "LY294002": 1.0}
POSITIVE = 10
LABELS = {"positive": "nuclear", "negative": "cytoplasmic", "": ""}
SOURCE = (
    "BBBC013v1 (FKHR-EGFP translocation in U2OS cells under Wortmannin and LY294002), provided by Ilya Ravkin, Broad "
    "Bioimage Benchmark Collection (Ljosa et al. 2012, Nat Methods 9:637). Scored are the controls; doses between "
    "them are predicted for the dose response."
)


@ASSAYS.register
class Bbbc013AssaySettings(AssaySettings):
    """BBBC013v1: FKHR translocation under two inhibitors of PI3K, one plate of 96 wells."""

    kind: Literal["bbbc013"] = "bbbc013"
    root: str | None = Field(None, description="Folder of the images or of BBBC013_v1_images_bmp; see bbbc021.")

    def load(self, place: Place) -> Assay:
        """Load BBBC013; see `load_bbbc013`."""
        return load_bbbc013(self, place.name, place.base)


def load_bbbc013(settings: Bbbc013AssaySettings, name: str, base: Path) -> Assay:
    """The plate as an assay whose controls are scored.

    Wells without drug carry the compound of their row at 0 µM, so that leaving a compound out leaves out its
    half of the plate.

    Parameters
    ----------
    settings : Bbbc013AssaySettings
        The ``assay:`` block of the study.
    name : str
        Name of the assay.
    base : Path
        Folder of the study file; a relative ``root`` starts there.

    Returns
    -------
    Assay
        96 fields, 2 channels, ``scoring='controls'``; concentrations in µM.

    Raises
    ------
    FaultsError
        Images are missing; neither metadata nor plate map is there; or they contradict the layout or each other. All
        of it is listed.
    """
    root = collection_root(settings.root, "bbbc013", base)
    hint = fetch_hint("bbbc013", root)
    faults: list[Fault] = []
    with gathering(faults):
        table = plate_files(root, IMAGES, CHANNELS, hint)
    with gathering(faults):
        numbers = _dose_numbers(root, hint)
    refuse(faults, f"The plate in {root} has {len(faults)} fault(s):")
    table[COMPOUND] = [_compound(w) for w in table[WELL]]
    table[CONCENTRATION] = [float(f"{DOSES[c][numbers[w]] * MICROMOLAR[c]:.6g}")
                            for c, w in zip(table[COMPOUND], table[WELL], strict=True)]
    table[CONTROL] = [{0: "negative", POSITIVE: "positive"}.get(numbers[w], "") for w in table[WELL]]
    table[LABEL] = table[CONTROL].map(LABELS)
    table[REPLICATE] = table[WELL].str[0].map(ROWS.index) % 4 + 1
    table[BATCH], table[PLATE], table[SITE] = "1", "BBBC013", 1
    return make_assay(name, root, table, list(CHANNELS.values()), source=SOURCE, scoring="controls",
                      lock=lock_of(root, IMAGES))


def _compound(well: str) -> str:
    return COMPOUNDS[0] if well[0] in ROWS[:4] else COMPOUNDS[1]


def _dose_numbers(root: Path, hint: str) -> dict[str, int]:
    """Dose number of each well, from whichever of the two files there is, or from both where they agree."""
    # The files are beside the folder of images, whichever of the two the root is.
    tables = next((p for p in (root, root.parent) if has_official(p, METADATA)), None)
    platemap = find_platemap(root, PLATEMAP)
    if tables is None and platemap is None:
        raise MorphobenchError(f"holds neither {METADATA}.csv nor {PLATEMAP}, which give the doses", str(root), hint)
    ours = theirs = None
    faults: list[Fault] = []
    with gathering(faults):
        ours = _from_metadata(tables, hint) if tables is not None else None
    with gathering(faults):
        theirs = _from_platemap(platemap) if platemap is not None else None
    refuse(faults, f"The metadata in {root} have {len(faults)} fault(s):")
    if ours is not None and theirs is not None:
        faults += [Fault(f"{METADATA}.csv gives dose number {ours[w]}, {PLATEMAP} number {theirs[w]}", f"well {w}",
                         "Use the collection's own files, unchanged.") for w in WELLS if ours[w] != theirs[w]]
        refuse(faults, f"The metadata in {root} contradict each other:")
    numbers = ours if ours is not None else theirs
    assert numbers is not None
    return numbers


def _from_metadata(folder: Path, hint: str) -> dict[str, int]:
    """Dose numbers of ``1049_Metadata.csv``: SBS_Doses 0–10, and SBS_Controls −1, 0, 1 that must go with them."""
    cells, name = read_official(folder, METADATA, ["Row", "Column", "SBS_Doses", "SBS_Controls"], hint)
    wells = cells["Row"] + cells["Column"].str.zfill(2)
    doses = pd.to_numeric(cells["SBS_Doses"], errors="coerce")
    controls = pd.to_numeric(cells["SBS_Controls"], errors="coerce")
    expected = np.select([doses == 0, doses == POSITIVE], [-1, 1], 0)
    faults = [Fault(f"{wells[i]!r} is not a well of the plate, or appears twice", f"{name}, {sheet_row(i)}")
              for i in cells.index[~wells.isin(WELLS) | wells.duplicated()]]
    faults += [Fault(f"SBS_Doses is {cells['SBS_Doses'][i]!r} and SBS_Controls {cells['SBS_Controls'][i]!r}: wanted "
                     f"are doses 0 to {POSITIVE}, with control -1 at 0, 1 at {POSITIVE} and 0 between",
                     f"{name}, {sheet_row(i)}")
               for i in cells.index[~doses.isin(range(POSITIVE + 1)) | (controls != expected)]]
    faults += [Fault(f"lacks the well {w}", name) for w in WELLS if w not in set(wells)]
    if faults:
        raise FaultsError(faults, f"{folder / name} has {len(faults)} fault(s):")
    return dict(zip(wells, doses.astype(int), strict=True))


def _from_platemap(path: Path) -> dict[str, int]:
    """Dose numbers that belong to the concentrations of the official plate map (nM in rows A–D, µM in E–H).

    LY294002 is at 80 µM twice: column 1 is the positive control, column 11 the end of the series.
    """
    doses = read_platemap(path)
    numbers, faults = {}, []
    for well, dose in doses.items():
        series = DOSES[_compound(well)]
        # Steps are twofold, so two per cent is room enough for maps that round otherwise.
        near = [n for n, d in enumerate(series) if abs(d - dose) <= 0.02 * d]
        if not near:
            faults.append(Fault(f"{dose:g} is no dose of {_compound(well)}", f"{path.name}, well {well}",
                                "Use the collection's own file, unchanged."))
            continue
        numbers[well] = near[-1] if len(near) == 1 or well[1:] == "01" else near[0]
    if faults:
        raise FaultsError(faults, f"{path} is not the plate map of BBBC013:")
    return numbers
