"""Profiles that know nothing of cells."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from benchmark.base.errors import MorphobenchError
from benchmark.base.tables import BATCH, PLATE, WELL, WELL_COLUMNS
from benchmark.base.tasks import run_serially
from benchmark.images.means import mean_intensities
from benchmark.images.reading import read_plane
from benchmark.profiles.baselines import batch_profiles, intensity_profiles, position_profiles


def wells(names: list[str], plates: list[str], batches: list[str]) -> pd.DataFrame:
    table = pd.DataFrame({c: "" for c in WELL_COLUMNS}, index=range(len(names)))
    return table.assign(**{WELL: names, PLATE: plates, BATCH: batches})


def test_position_and_batch_say_nothing_else():
    table = wells(["A01", "B02", "A01"], ["p1", "p1", "p2"], ["w1", "w1", "w2"])
    position, batch = position_profiles(table), batch_profiles(table)
    assert position.filter(like="Position_").iloc[0].equals(position.filter(like="Position_").iloc[2])
    assert batch.filter(like="Batch_").to_numpy().tolist() == [[1, 0], [1, 0], [0, 1]]
    one = wells(["A01", "B02"], ["p1", "p2"], ["w1", "w1"])
    assert batch_profiles(one).filter(like="Batch_").to_numpy().tolist() == [[1, 0], [0, 1]]
    with pytest.raises(MorphobenchError, match="one batch with one plate"):
        batch_profiles(one.assign(**{PLATE: "p"}))


def test_mean_intensities_are_those_of_the_stored_pixels(make_tiny):
    assay = make_tiny(plates=2)[0]
    means = mean_intensities(assay, run_serially)
    row, channel = assay.fields.iloc[3], assay.channels[-1]
    pixels = read_plane(assay.root / row[f"Path_{channel}"], row[f"Plane_{channel}"])
    assert means.loc[3, f"Image_Mean_{channel}"] == pytest.approx(pixels.mean())
    table = intensity_profiles(assay.wells, means)
    assert len(table) == len(assay.wells) and np.isfinite(table.filter(like="Image_Mean_")).all(axis=None)
