"""A small assay drawn by code, shared by tests of the rooms that need images or wells."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
from fake_server import PLATES, QUICK, collection_files
from hostile_server import Hostile, serving

from benchmark.assays.fetching.download import Patience
from benchmark.assays.fetching.fetch import fetch_assay
from benchmark.assays.fieldtable import Assay, make_assay
from benchmark.base.tables import path_column, plane_column
from benchmark.quality.check import assay_hash, file_hashes

CHANNELS = ("DNA", "Tubulin", "Actin")


def field_rows(
    labels: int = 3, compounds: int = 3, plates: int = 2, sites: int = 1, controls: int = 0, concentrations: int = 1
) -> pd.DataFrame:
    """Metadata of an assay: every treatment in one well of each plate."""
    rows = []
    for plate in range(plates):
        wells: list[tuple[str, str, float, str]] = [
            (f"cpd-{m}{c}", f"label-{m}", 10.0**k, "")
            for m in range(labels) for c in range(compounds) for k in range(concentrations)
        ]
        wells += [("DMSO", "", 0.0, "negative")] * controls
        for number, (compound, label, concentration, control) in enumerate(wells, 1):
            for site in range(1, sites + 1):
                rows.append({
                    "Metadata_Batch": "1", "Metadata_Plate": f"P{plate}", "Metadata_Well": f"A{number:02d}",
                    "Metadata_Site": site, "Metadata_Replicate": str(plate + 1), "Metadata_Compound": compound,
                    "Metadata_Concentration": concentration, "Metadata_Label": label, "Metadata_Control": control,
                })
    return pd.DataFrame(rows)


def draw(row: dict[str, object], rng: np.random.Generator, size: int) -> np.ndarray:
    """(3, size, size) uint8: noise, and stripes whose pitch and channel follow the label."""
    kind = int(str(row["Metadata_Label"])[-1]) if row["Metadata_Label"] else 7
    planes = rng.normal(40, 6, (3, size, size))
    x = np.arange(size)
    planes[kind % 3] += 70 * (1 + np.sin(2 * np.pi * x / (4 + 3 * kind)))[None, :]
    return np.clip(planes, 0, 255).astype(np.uint8)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The toys start worker processes: slow, which their own files do not say: these show how little a kind takes."""
    for item in items:
        if item.name == "test_it_runs_on_worker_processes_and_stands_on_the_page":
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def make_tiny(tmp_path: Path) -> Callable[..., tuple[Assay, dict[str, str], str]]:
    """A function that writes a tiny assay and gives it with its file hashes and its hash."""

    def make(size: int = 32, seed: int = 0, **kinds: int) -> tuple[Assay, dict[str, str], str]:
        table = field_rows(**kinds)
        rng = np.random.default_rng(seed)
        root = tmp_path / "images"
        root.mkdir(exist_ok=True)
        for i, row in enumerate(table.to_dict("records")):
            tifffile.imwrite(root / f"f{i}.tif", draw(row, rng, size), photometric="minisblack")
        for c, channel in enumerate(CHANNELS):
            table[path_column(channel)] = [f"f{i}.tif" for i in range(len(table))]
            table[plane_column(channel)] = c
        assay = make_assay("tiny", root, table, CHANNELS)
        hashes = file_hashes(assay)
        return assay, hashes, assay_hash(assay, hashes)

    return make


@pytest.fixture
def data_folder() -> Path:
    """The real data; absent only outside CI, and then said aloud."""
    folder = os.environ.get("MORPHOBENCH_DATA", "")
    if not folder:
        if os.environ.get("CI"):
            pytest.fail("MORPHOBENCH_DATA is not set, and CI must not skip the real data")
        pytest.skip("MORPHOBENCH_DATA is not set: the tests on real data did not run")
    return Path(folder)


@pytest.fixture
def server() -> Iterator[Hostile]:
    """A server of small collections that misbehaves when told to."""
    with serving(collection_files()) as hostile:
        yield hostile


@pytest.fixture
def fetch(server: Hostile, tmp_path: Path) -> Callable[..., Path]:
    """Fetch from the hostile server; two plates unless told otherwise."""

    def go(
        name: str = "bbbc021", plates: tuple[str, ...] = PLATES[:2], patience: Patience = QUICK, **more: Any
    ) -> Path:
        return fetch_assay(name, tmp_path, plates=plates, base_url=server.url, patience=patience, **more)

    return go
