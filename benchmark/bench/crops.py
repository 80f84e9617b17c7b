"""For `make bench`: reading random batches from the crop cache, building it, and the memory that both take.

Measured on a plate made of a study's own fields, enlarged to the format of BBBC021: three 16-bit TIFF files of
1280×1024 pixels per field. Enlarged fields are smoother than a microscope's, so the rival's PNG files decode faster
than real ones would.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import tifffile

from benchmark.assays.fieldtable import Assay, make_assay
from benchmark.base.tables import CONTROL, path_column, plane_column
from benchmark.bench.ratio import Ratio, best_of
from benchmark.crops.build import build_crops, crop_key
from benchmark.crops.reader import Crops, open_crops
from benchmark.crops.settings import CropSettings
from benchmark.images.reading import read_field

HEIGHT, WIDTH, SIDE, BATCH = 1024, 1280, 224, 32
CHANNELS = ("DNA", "Tubulin", "Actin")
PAPER = CropSettings(size=SIDE, intensity="kensert2019")
#: Stands for the assay's hash in the keys of the caches made here.
HASH = "bench"


@dataclass(frozen=True)
class Memory:
    """Peak memory of building and of reading, at one number of crops."""

    crops: int
    build_mib: float
    read_mib: float


def plate_of(assay: Assay, folder: Path, count: int = 48) -> Assay:
    """A plate of ``count`` fields in the format of BBBC021, from an assay's predicted fields; 8 are controls."""
    folder.mkdir(parents=True, exist_ok=True)
    source = assay.predicted
    rows = []
    for i in range(count):
        planes = read_field(assay, source.iloc[i * len(source) // count])
        deep = 256 if planes.dtype == np.uint8 else 1
        row: dict[str, Any] = {
            "Metadata_Batch": "1", "Metadata_Plate": "P", "Metadata_Well": f"W{i:03d}", "Metadata_Site": 1,
            "Metadata_Replicate": "1", "Metadata_Compound": f"c{i % 4}", "Metadata_Concentration": 1.0,
            "Metadata_Label": f"label-{i % 2}", "Metadata_Control": "",
        }
        if i < 8:
            row |= {"Metadata_Compound": "DMSO", "Metadata_Label": "", "Metadata_Control": "negative"}
        for c, channel in enumerate(CHANNELS):
            large = cv2.resize(planes[c % len(planes)], (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
            name = f"{i}-{channel}.tif"
            tifffile.imwrite(folder / name, large.astype(np.uint16) * deep)
            row |= {path_column(channel): name, plane_column(channel): 0}
        rows.append(row)
    return make_assay("bench", folder, pd.DataFrame(rows), CHANNELS)


def crop_ratios(assay: Assay, folder: Path) -> list[Ratio]:
    """All rows about speed, on an assay's fields; both sides of each see the same pixels and give the same crops."""
    plate = plate_of(assay, folder / "plate")
    png = folder / "png"
    png.mkdir()
    threads = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1)
        return [*building(plate, folder / "crops.h5", png), random_batches(plate, folder)]
    finally:
        cv2.setNumThreads(threads)


def paper_crops(folder: Path) -> Crops:
    """The cache that `crop_ratios` left in its folder: three channels of 8 bits, 224 px."""
    return open_crops(folder / "crops.h5", crop_key(HASH, PAPER))


def random_batches(plate: Assay, folder: Path, most: int = 128) -> Ratio:
    """Random batches of crops at network size, one core: the cache against one PNG of 512×640 per crop."""
    crops = paper_crops(folder)
    rows = np.random.default_rng(0).permutation(len(crops))[:most]
    paths = _store_tiles(plate, crops, rows, folder)
    batches = np.split(rows, range(BATCH, len(rows), BATCH))

    def rival() -> np.ndarray:
        for batch in batches:
            out = np.empty((len(batch), SIDE, SIDE, 3), np.uint8)
            for i, row in enumerate(batch.tolist()):
                tile = cv2.imread(str(paths[row]))
                assert tile is not None
                out[i] = cv2.resize(tile, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        return out

    def ours() -> np.ndarray:
        for batch in batches:
            out = crops.batch(batch)
        return out

    if not np.array_equal(np.moveaxis(rival(), 3, 1), ours()):
        raise AssertionError("the cache and the PNG files give different crops")
    return Ratio(f"{len(rows)} crops of {SIDE} px in random batches, one core", "one PNG per crop, OpenCV",
                 best_of(ours, 3), best_of(rival, 3))


def _store_tiles(plate: Assay, crops: Crops, rows: np.ndarray, folder: Path) -> dict[int, Path]:
    """The tiles that crops were resized from, as PNG files, made by the plain loop."""
    moments = _plain_moments(plate)
    paths, tiles = {}, {}
    for row in sorted(rows.tolist()):
        field, number = int(crops.field[row]), int(crops.crop[row])
        if field not in tiles:
            tiles = {field: _plain_tiles(plate, plate.fields.iloc[field], moments)}
        paths[row] = folder / f"tile-{row}.png"
        cv2.imwrite(str(paths[row]), tiles[field][number])
    return paths


def building(plate: Assay, cache: Path, png: Path) -> list[Ratio]:
    """Build the cache in two processes, against a plain loop over the same fields, and against reading alone.

    Starting the processes is not timed: on an assay of realistic size it does not matter.
    """
    fields = len(plate.predicted)
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:

        def run_tasks(function: Callable[[Any], Any], tasks: Sequence[Any], label: str = "") -> Iterator[Any]:
            for future in as_completed([pool.submit(function, task) for task in tasks]):
                yield future.result()

        def build() -> None:
            cache.unlink(missing_ok=True)
            build_crops(cache, plate, HASH, PAPER, run_tasks=run_tasks)

        pieces = [replace(plate, fields=plate.fields.iloc[i : i + 4]) for i in range(0, len(plate.fields), 4)]
        list(pool.map(_read_all, pieces))
        build()
        reading = best_of(lambda: list(pool.map(_read_all, pieces)), 2)
        ours = best_of(build, 2)
    rival = best_of(lambda: _plain_loop(plate, png), 2)
    return [
        Ratio(f"crops of {fields} fields built, kensert2019, two processes", "a plain loop writing PNG files", ours,
              rival),
        Ratio(f"the same fields only read, two processes ({reading / ours:.0%} of building)", "building", reading,
              ours),
    ]


def _read_all(piece: Assay) -> int:
    return sum(int(read_field(piece, row)[0, 0, 0]) for _, row in piece.fields.iterrows())


def _plain_read(plate: Assay, row: pd.Series) -> np.ndarray:
    """(H, W, 3) float32, Anscombe-transformed."""
    planes = [tifffile.imread(plate.root / row[path_column(c)]) for c in CHANNELS]
    return 2.0 * np.sqrt(np.dstack(planes).astype(np.float32) + 3.0 / 8.0)


def _plain_moments(plate: Assay) -> tuple[np.ndarray, np.ndarray]:
    rows = plate.fields[plate.fields[CONTROL] == "negative"]
    controls = np.stack([_plain_read(plate, row) for _, row in rows.iterrows()])
    return (controls.mean(axis=(0, 1, 2), dtype=np.float64).astype(np.float32),
            controls.std(axis=(0, 1, 2), dtype=np.float64).astype(np.float32))


def _plain_tiles(plate: Assay, row: pd.Series, moments: tuple[np.ndarray, np.ndarray]) -> dict[int, np.ndarray]:
    """Tiles of a field as the paper makes them: number to (512, 640, 3) uint8."""
    x = _plain_read(plate, row)
    x -= moments[0]
    x /= moments[1]
    x = (x - x.min()) * 255 / (x.max() - x.min())
    tiles = {}
    for number in range(4):
        top, left = number % 2 * HEIGHT // 2, number // 2 * WIDTH // 2
        tile = x[top : top + HEIGHT // 2, left : left + WIDTH // 2]
        if (tile > 255 / 5.1).sum() / tile.size > 0.002:
            tiles[number] = tile.astype(np.uint8)
    return tiles


def _plain_loop(plate: Assay, folder: Path) -> None:
    moments = _plain_moments(plate)
    for index, row in plate.predicted.iterrows():
        for number, tile in _plain_tiles(plate, row, moments).items():
            small = cv2.resize(tile, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
            cv2.imwrite(str(folder / f"{index}-{number}.png"), small)


def crop_memory(assay: Assay, folder: Path, sizes: Sequence[int] = (1, 10, 100)) -> list[Memory]:
    """Peak memory of building and of reading, each in a process of its own, at several multiples of 128 crops."""
    plate = plate_of(assay, folder / "memory", 12)
    plate.fields.to_parquet(folder / "memory" / "fields.parquet")
    rows = []
    for size in sizes:
        results = [json.loads(subprocess.run(
            [sys.executable, "-m", "benchmark.bench.crops", step, str(folder / "memory"), str(size)],
            check=True, capture_output=True, text=True).stdout) for step in ("build", "read")]
        rows.append(Memory(results[0]["crops"], results[0]["mib"], results[1]["mib"]))
    return rows


def _memory_step(step: str, folder: Path, size: int) -> dict[str, float]:
    """In a process of its own: build ``128 · size`` crops, or read random batches of them; the peak in MiB."""
    fields = pd.read_parquet(folder / "fields.parquet")
    treated = fields[fields[CONTROL] == ""]
    many = pd.concat([fields[fields[CONTROL] == "negative"].head(4), *[treated.head(4)] * (2 * size)],
                     ignore_index=True)
    many["Metadata_Site"] = np.arange(len(many))
    settings = CropSettings(size=64, grid=(4, 4))
    cache = folder / f"{size}.h5"
    if step == "build":
        build_crops(cache, Assay("bench", folder, many, CHANNELS), HASH, settings)
    crops = open_crops(cache, crop_key(HASH, settings))
    rng = np.random.default_rng(0)
    for _ in range(min(400, 4 * size) if step == "read" else 0):
        crops.batch(rng.integers(0, len(crops), BATCH))
    return {"crops": len(crops), "mib": peak_mib()}


def peak_mib() -> float:
    """Peak memory of this process. (ru_maxrss would include what its parent held before starting it.)"""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(row for row in status.read_text().splitlines() if row.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    print(json.dumps(_memory_step(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))))
