"""Small fakes of BBBC021, BBBC014 and BBBC013 in their official layouts, made by code: noise and discs, no biology.

They say where files lie and how they are named and numbered; sizes are free.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

ROWS = "ABCDEFGH"
IMAGE_HEADER = [
    "TableNumber", "ImageNumber", "Image_FileName_DAPI", "Image_PathName_DAPI", "Image_FileName_Tubulin",
    "Image_PathName_Tubulin", "Image_FileName_Actin", "Image_PathName_Actin", "Image_Metadata_Plate_DAPI",
    "Image_Metadata_Well_DAPI", "Replicate", "Image_Metadata_Compound", "Image_Metadata_Concentration"]
PLATES = ("Week1_22123", "Week2_24121")
#: Compound, concentration as the CSV writes it, mechanism ('' for none), wells on each plate (None for Week1 alone).
CONTENTS = [
    ("DMSO", "0.000000", "DMSO", ("B02", "C02"), True),
    ("taxol", "0.300000", "Microtubule stabilizers", ("B11",), True),  # the plates' positive control
    ("taxol", "0.300000", "Microtubule stabilizers", ("D05",), False),  # the dose series of Week1
    ("taxol", "1.000000", "Microtubule stabilizers", ("D04",), False),
    ("taxol", "0.030000", "", ("D07",), False),
    ("docetaxel", "0.100000", "Microtubule stabilizers", ("E03",), True),
    ("docetaxel", "0.000300", "", ("E10",), True),
    ("cyclohexamide", "5.000000", "Protein synthesis", ("F03",), True),
    ("emetine", "0.300000", "Protein synthesis", ("F04",), True),
    ("acyclovir", "0.001500", "", ("G09",), True),
]


def bbbc021_rows(plates: Sequence[str] = PLATES, sites: int = 2) -> list[list[str]]:
    """Rows of ``BBBC021_v1_image.csv`` below its header."""
    rows: list[list[str]] = []
    for p, plate in enumerate(plates):
        week = plate.split("_")[0]
        for compound, concentration, _, wells, everywhere in CONTENTS:
            for well in wells if everywhere or week == "Week1" else ():
                for site in range(1, sites + 1):
                    number = len(rows)
                    files = [f"{plate}_{well}_s{site}_w{w}{number:08X}-0000.tif" for w in (1, 2, 4)]
                    rows.append([str(p + 1), str(number), *(v for f in files for v in (f, f"{week}/{plate}")),
                                 plate, well, str(p + 1), compound, concentration])
    return rows


def write_bbbc021(
    folder: Path, layout: str = "flat", rows: list[list[str]] | None = None, images: bool = True, gz: bool = False,
    shape: tuple[int, int] = (24, 32), seed: int = 0,
) -> None:
    """CSV files at the top of ``folder``, and 16-bit TIFFs in a folder a plate.

    Parameters
    ----------
    layout : str
        ``flat``: ``Week1_22123/``, as archives unpack; ``nested``: ``Week1/Week1_22123/``.
    """
    rows = bbbc021_rows() if rows is None else rows
    moa = [[c, x, m] for c, x, m in dict.fromkeys((c, x, m) for c, x, m, _, _ in CONTENTS) if m]
    names = dict.fromkeys(c for c, *_ in CONTENTS)
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder / "BBBC021_v1_image.csv", [IMAGE_HEADER, *rows], gz)
    write_csv(folder / "BBBC021_v1_moa.csv", [["compound", "concentration", "moa"], *moa])
    write_csv(folder / "BBBC021_v1_compound.csv", [["compound", "smiles"], *([c, "C"] for c in names)])
    rng = np.random.default_rng(seed)
    for row in rows if images else []:
        place = folder / (row[8] if layout == "flat" else row[3])
        place.mkdir(parents=True, exist_ok=True)
        for name in (row[2], row[4], row[6]):
            pixels = rng.poisson(400, shape) + 2000 * (_disc(shape, rng) > 0)
            tifffile.imwrite(place / name, pixels.astype(np.uint16), photometric="minisblack")


def write_csv(path: Path, rows: list[list[str]], gz: bool = False) -> None:
    """Cells quoted as in the official files."""
    if gz:
        with gzip.open(f"{path}.gz", "wt", newline="", encoding="utf-8") as handle:
            csv.writer(handle).writerows(rows)
    else:
        with path.open("w", newline="", encoding="utf-8") as handle:
            csv.writer(handle, quoting=csv.QUOTE_NONNUMERIC).writerows(rows)


def well_names() -> list[str]:
    """A01 … H12 along the rows."""
    return [f"{r}{c:02d}" for r in ROWS for c in range(1, 13)]


def write_plate(
    folder: Path, name: str = "Channel {channel}-{number:02d}-{row}-{column:02d}-00.Bmp",
    shape: tuple[int, int] = (24, 32), seed: int = 0,
) -> None:
    """192 8-bit images of a translocation plate: the reporter (channel 1) is in the nuclei of columns 1–4."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for number, well in enumerate(well_names(), 1):
        nuclei = _disc(shape, rng)
        share = np.clip((12 - int(well[1:])) / 8, 0, 1)
        planes = {1: 30 + 120 * (share * nuclei + (1 - share) * (1 - nuclei)), 2: 20 + 150 * nuclei}
        for channel, plane in planes.items():
            pixels = np.clip(plane + rng.normal(0, 4, shape), 0, 255).astype(np.uint8)
            path = folder / name.format(channel=channel, number=number, row=well[0], column=int(well[1:]))
            if path.suffix.lower() == ".bmp":
                Image.fromarray(pixels).save(path, format="BMP")
            else:
                tifffile.imwrite(path, pixels, photometric="minisblack")


def bbbc014_doses() -> list[str]:
    """Entries of the plate map of BBBC014: powers of ten that fall along the columns, the same in every row."""
    return [f"10^-{7 + (c - 1) * 0.5:g}" for _ in ROWS for c in range(1, 13)]


def bbbc013_doses() -> list[str]:
    """Entries of the plate map of BBBC013: nM of Wortmannin in rows A–D, µM of LY294002 in rows E–H."""
    wortmannin = ["0", "0", "0.98", "1.95", "3.91", "7.81", "15.63", "31.25", "62.5", "125", "250", "150"]
    ly294002 = ["80", "0", "0.31", "0.63", "1.25", "2.5", "5", "10", "20", "40", "80", "0"]
    return [dose for row in ROWS for dose in (wortmannin if row in "ABCD" else ly294002)]


def write_platemap(path: Path, entries: Sequence[str], end: str = "\r\n") -> None:
    """A heading and an entry a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(end.join(["DESCRIPTION Dose", *entries, ""]).encode())


def write_bbbc014(folder: Path, shape: tuple[int, int] = (24, 32)) -> None:
    """The fetched layout: the plate map, and the images in their own folder."""
    write_plate(folder / "BBBC014_v1_images", shape=shape)
    write_platemap(folder / "BBBC014_v1_platemap_all.txt", bbbc014_doses(), end="\r")


def write_bbbc013(folder: Path, shape: tuple[int, int] = (24, 32)) -> None:
    """The fetched layout: the plate map, and the images in their own folder."""
    write_plate(folder / "BBBC013_v1_images_bmp", "Channel{channel}-{number:02d}-{row}-{column:02d}.BMP", shape)
    write_platemap(folder / "BBBC013_v1_platemap_all.txt", bbbc013_doses())


def _disc(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    y, x = np.indices(shape)
    cy, cx = (rng.uniform(0.3, 0.7) * n for n in shape)
    return ((y - cy) ** 2 + (x - cx) ** 2 < (min(shape) / 5) ** 2).astype(float)
