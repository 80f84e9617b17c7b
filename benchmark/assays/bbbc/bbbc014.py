"""BBBC014v1: TNFα sends NFκB from the cytoplasm to the nucleus of MCF7 and A549 cells.

One plate of 96 wells: rows A–D are MCF7 cells, rows E–H A549; TNFα falls from column 1 to column 12 in twelve
steps. Labels are those of the code of Kensert et al. 2019 (``generate_dataset_bbbc014.py``: "four highest
concentrations and four lowest"): columns 1–4 against columns 9–12. Columns 5–8 carry no label: they are predicted
for the dose response, never trained on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pandas as pd
from pydantic import Field

from benchmark.assays.bbbc.official import collection_root, fetch_hint, lock_of
from benchmark.assays.bbbc.translocation import ROWS, find_platemap, plate_files, read_platemap
from benchmark.assays.faults import gathering, refuse
from benchmark.assays.fieldtable import Assay, make_assay
from benchmark.assays.registry import ASSAYS, AssaySettings, Place
from benchmark.base.errors import Fault, FaultsError, MorphobenchError
from benchmark.base.tables import (
    BATCH,
    CELL_LINE,
    COMPOUND,
    CONCENTRATION,
    CONTROL,
    LABEL,
    PLATE,
    REPLICATE,
    SITE,
    WELL,
)

#: File number → channel: 1 is FITC (NFκB), 2 is DAPI, in the order in which crops stack them.
CHANNELS = {1: "NFkB", 2: "DNA"}
IMAGES = "BBBC014_v1_images"
PLATEMAP = "BBBC014_v1_platemap_all.txt"
HIGH, LOW = range(1, 5), range(9, 13)
SOURCE = (
    "BBBC014v1 (NFkB translocation in MCF7 and A549 cells under TNFa), provided by Ilya Ravkin, Broad Bioimage "
    "Benchmark Collection (Ljosa et al. 2012, Nat Methods 9:637). Labels as Kensert et al. 2019 (SLAS Discov 24:466): "
    "columns 1-4 against 9-12. The plate map gives powers of ten without a unit; they are taken as mol/L."
)


@ASSAYS.register
class Bbbc014AssaySettings(AssaySettings):
    """BBBC014v1: NFkB translocation under TNFa in two cell lines, one plate of 96 wells."""

    kind: Literal["bbbc014"] = "bbbc014"
    root: str | None = Field(None, description="Folder of the images or of BBBC014_v1_images; see bbbc021.")

    def load(self, place: Place) -> Assay:
        """Load BBBC014; see `load_bbbc014`."""
        return load_bbbc014(self, place.name, place.base)


def load_bbbc014(settings: Bbbc014AssaySettings, name: str, base: Path) -> Assay:
    """The plate as an assay whose controls are scored.

    Wells of columns 1–4 are labelled ``nuclear`` (positive controls), those of columns 9–12 ``cytoplasmic``
    (negative controls), after where NFκB is. The lowest doses are no untreated wells: their concentration
    is in the table as it is.

    Parameters
    ----------
    settings : Bbbc014AssaySettings
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
        Images or plate map are missing or broken, or the doses do not fall along the columns. All of it is listed.
    """
    root = collection_root(settings.root, "bbbc014", base)
    hint = fetch_hint("bbbc014", root)
    faults: list[Fault] = []
    with gathering(faults):
        table = plate_files(root, IMAGES, CHANNELS, hint)
    with gathering(faults):
        molar = _doses(root, hint)
    refuse(faults, f"The plate in {root} has {len(faults)} fault(s):")
    table[CONCENTRATION] = [float(f"{molar[w] * 1e6:.6g}") for w in table[WELL]]
    rows, columns = table[WELL].str[0].map(ROWS.index), table[WELL].str[1:].astype(int)
    table[CELL_LINE] = ["MCF7" if row < 4 else "A549" for row in rows]
    table[REPLICATE] = rows % 4 + 1
    table[LABEL] = [_by_column(c, "nuclear", "cytoplasmic") for c in columns]
    table[CONTROL] = [_by_column(c, "positive", "negative") for c in columns]
    table[BATCH], table[PLATE], table[SITE], table[COMPOUND] = "1", "BBBC014", 1, "TNFa"
    return make_assay(name, root, table, list(CHANNELS.values()), source=SOURCE, scoring="controls",
                      lock=lock_of(root, IMAGES))


def _doses(root: Path, hint: str) -> dict[str, float]:
    """Dose of each well (mol/L), by the plate map, which must fall along the columns."""
    platemap = find_platemap(root, PLATEMAP)
    if platemap is None:
        raise MorphobenchError(f"holds no {PLATEMAP}, which gives the doses", str(root), hint)
    molar = read_platemap(platemap)
    _check_order(molar, platemap)
    return molar


def _by_column(column: int, high: str, low: str) -> str:
    return high if column in HIGH else low if column in LOW else ""


def _check_order(doses: dict[str, float], path: Path) -> None:
    """Refuse a map of another plate, or one read the wrong way round: labels go by columns, so doses must too."""
    table = pd.Series(doses)
    faults = []
    for row in ROWS:
        high = min(table[f"{row}{c:02d}"] for c in HIGH)
        low = max(table[f"{row}{c:02d}"] for c in LOW)
        if high <= low:
            faults.append(Fault(f"the lowest dose of columns 1-4 ({high:g}) is not above the highest of columns 9-12 "
                                f"({low:g})", f"{path.name}, row {row}", "Use the collection's own file, unchanged."))
    if faults:
        raise FaultsError(faults, f"{path} is not the plate map of BBBC014:")
