"""Small collections as a server has them, and what must lie on disk when they have been fetched."""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path

import numpy as np

from benchmark.assays.fetching.download import Patience
from benchmark.assays.fetching.lock import lock_faults, read_lock
from benchmark.base.files import sha256_file

QUICK = Patience(connect=10, read=10, tries=3, pause=0.01, chunk=512)
PLATES = ("Week1_22123", "Week2_24121", "Week10_40111")
HEADER = ["TableNumber", "ImageNumber", "Image_FileName_DAPI", "Image_PathName_DAPI", "Image_FileName_Tubulin",
          "Image_PathName_Tubulin", "Image_FileName_Actin", "Image_PathName_Actin", "Image_Metadata_Plate_DAPI",
          "Image_Metadata_Well_DAPI", "Replicate", "Image_Metadata_Compound", "Image_Metadata_Concentration"]
ZIP = "/BBBC021/BBBC021_v1_images_{}.zip"
FIRST, SECOND, TENTH = map(ZIP.format, PLATES)
TABLE = "/BBBC021/BBBC021_v1_image.csv"


def image(plate: str, site: int, channel: int) -> tuple[str, bytes]:
    seed = [int(plate.split("_")[1]), site, channel]
    return f"{plate}_B02_s{site}_w{channel}.tif", np.random.default_rng(seed).bytes(4000 + site)


def image_table(plates=PLATES) -> bytes:
    out = io.StringIO()
    table = csv.writer(out, quoting=csv.QUOTE_NONNUMERIC)
    table.writerow(HEADER)
    for plate in plates:
        for site in (1, 2):
            path = f"{plate.split('_')[0]}/{plate}"
            names = [x for c in (1, 2, 4) for x in (image(plate, site, c)[0], path)]
            table.writerow([1, site, *names, plate, "B02", 1, "DMSO", 0.0])
    return out.getvalue().encode()


def plate_archive(plate: str, folder: bool = True) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as z:
        for site in (1, 2):
            for channel in (1, 2, 4):
                name, data = image(plate, site, channel)
                z.writestr(f"{plate}/{name}" if folder else name, data)
        z.writestr("Thumbs.db", b"x")
    return out.getvalue()


def wells(channel: str) -> dict[str, bytes]:
    return {f"{channel}-{12 * i + j:02d}-{'ABCDEFGH'[i]}-{j:02d}.BMP": f"{channel}{i}{j}".encode() * 9
            for i in range(8) for j in range(1, 13)}


def collection_files() -> dict[str, bytes]:
    files = {TABLE: image_table(), "/BBBC021/BBBC021_v1_moa.csv": b'"compound","concentration","moa"\n"a",1.0,"b"\n',
             "/BBBC021/BBBC021_v1_compound.csv": b'"compound","smiles"\n"DMSO",""\n',
             "/BBBC013/BBBC013_v1_platemap_all.txt": b"platemap\n1\n2\n"}
    files |= {ZIP.format(p): plate_archive(p, folder=p != "Week2_24121") for p in PLATES}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        for name, data in {**wells("Channel1"), **wells("Channel2")}.items():
            z.writestr(name, data)
    return files | {"/BBBC013/BBBC013_v1_images_bmp.zip": out.getvalue()}


def whole(root: Path, plates=PLATES[:2]) -> None:
    """Everything of these plates is there, byte for byte, locked, and nothing else."""
    expected = {f"{p}/{n}": d for p in plates for s in (1, 2) for c in (1, 2, 4) for n, d in [image(p, s, c)]}
    tables = {f"BBBC021_v1_{t}.csv" for t in ("image", "moa", "compound")}
    there = {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()}
    assert there == {*expected, *tables, "lock.json", ".fetching"}
    assert {p.name for p in root.iterdir() if p.is_dir()} == set(plates)
    for name, data in expected.items():
        assert (root / name).read_bytes() == data
    hashes = {name: sha256_file(root / name) for name in expected}
    assert lock_faults(root / "lock.json", root, hashes) == []
    assert {n for n in read_lock(root / "lock.json").archives if n.endswith(".zip")} \
        == {f"BBBC021_v1_images_{p}.zip" for p in plates}


def nothing_final(root: Path, plate: str) -> None:
    """No trace of a plate under its final name, nor in the lock file."""
    assert not (root / plate).exists()
    assert f"BBBC021_v1_images_{plate}.zip" not in read_lock(root / "lock.json").archives
    assert not list(root.glob(".unpacking-*"))


def flipped(body: bytes) -> bytes:
    data = bytearray(body)
    data[len(data) // 2] ^= 8
    return bytes(data)


def other_content() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as z:
        for site in (1, 2):
            for channel in (1, 2, 4):
                z.writestr(f"{PLATES[0]}/{image(PLATES[0], site, channel)[0]}", b"other" * site)
    return out.getvalue()


def lay_out(root: Path, plate: str) -> None:
    (root / plate).mkdir(parents=True)
    for site in (1, 2):
        for channel in (1, 2, 4):
            name, data = image(plate, site, channel)
            (root / plate / name).write_bytes(data)
