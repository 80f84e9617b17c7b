"""Cells of shards come together by plate, each once, whatever the shards."""

import numpy as np
import pandas as pd
import pytest
from cell_memory import peak_memory
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from benchmark.base.errors import MorphobenchError
from benchmark.base.tables import FIELD_KEY, SITE, WELL, WELL_KEY
from benchmark.bench.cells import aggregation_ratio, well_profiles
from benchmark.cellprofiler import partition as module
from benchmark.cellprofiler.partition import NUMBER, SHARD_CELLS, partition
from benchmark.cells.folder import BLOCK_ROWS
from benchmark.cells.table import SingleCells

NAMES = ["Cells_a", "Nuclei_b", "Nuclei_c"]
CENTRE = "Metadata_Cells_Location_Center_X"


def field_table(plates=2, wells=3, sites=2):
    keys = [(f"P/{p}", f"A{w:02d}", s) for p in range(plates) for w in range(wells) for s in range(1, sites + 1)]
    return pd.DataFrame(keys, columns=FIELD_KEY).assign(Metadata_Compound="x")


def cells_of(fields, rng):
    """0 to 5 cells a field with two features of which some are missing."""
    rows = fields.loc[fields.index.repeat(rng.integers(0, 6, len(fields))), FIELD_KEY].reset_index(drop=True)
    rows[NUMBER] = (rows.groupby(FIELD_KEY).cumcount() + 1).astype(np.int32)
    rows[CENTRE] = rng.uniform(0, 9, len(rows)).astype(np.float32)
    for name in NAMES:
        rows[name] = np.where(rng.random(len(rows)) < 0.2, np.nan, rng.normal(size=len(rows))).astype(np.float32)
    return rows


def land(folder, name, cells):
    (folder / name).mkdir(parents=True)
    cells.to_parquet(folder / name / SHARD_CELLS, index=False, compression="zstd")
    return folder / name


def everything(cells, columns):
    parts = [block for plate in cells.plates for block in cells.blocks(plate, columns)]
    return pd.concat(parts, ignore_index=True)


@given(st.integers(0, 999), st.integers(1, 12), st.integers(1, 30), st.booleans())
@settings(max_examples=12, deadline=None)
def test_shards_in_any_cut_and_order_give_the_same_cells(tmp_path_factory, seed, size, rows, mixed):
    rng = np.random.default_rng(seed)
    fields = field_table()
    cells = cells_of(fields, rng)
    assume(len(cells))
    order = rng.permutation(len(fields)) if mixed else np.arange(len(fields))
    folder = tmp_path_factory.mktemp("p")
    index = pd.MultiIndex.from_frame(cells[FIELD_KEY])
    shards = []
    for first in range(0, len(fields), size):
        some = pd.MultiIndex.from_frame(fields.iloc[order[first : first + size]][FIELD_KEY])
        shards.append(land(folder, f"s{first}", cells[index.isin(some)]))
    got = partition(shards, fields, folder / "cells-x", rows)
    pd.testing.assert_frame_equal(everything(got, [NUMBER, CENTRE, *NAMES]), cells, check_exact=True)
    assert got.features == tuple(NAMES)


def test_a_shard_without_cells_gives_no_columns_and_missing_ones_are_nan(tmp_path):
    fields = field_table(1)
    cells = cells_of(fields, np.random.default_rng(1))
    first = cells[WELL] == "A00"
    shards = [land(tmp_path, "empty", cells.iloc[:0][[*FIELD_KEY, NUMBER]].assign(Cells_other=1.0)),
              land(tmp_path, "few", cells[first].drop(columns=["Nuclei_b", CENTRE])),
              land(tmp_path, "rest", cells[~first])]
    got = partition(shards, fields, tmp_path / "cells-x")
    assert set(got.features) == set(NAMES)
    wanted = cells.copy()
    wanted.loc[first, ["Nuclei_b", CENTRE]] = np.nan
    pd.testing.assert_frame_equal(everything(got, [NUMBER, CENTRE, *NAMES]), wanted, check_exact=True)
    none = partition(shards[:1], fields, tmp_path / "cells-y")
    assert none.plates == () and none.features == ()


def test_fields_lie_as_the_field_table_has_them(tmp_path):
    fields = field_table(1, 1, 3).iloc[::-1].reset_index(drop=True)
    cells = cells_of(field_table(1, 1, 3), np.random.default_rng(2))
    got = partition([land(tmp_path, "s", cells)], fields, tmp_path / "c")
    assert got.counts[SITE].tolist() == [s for s in (3, 2, 1) if s in set(cells[SITE])]


def test_wrong_shards_are_refused(tmp_path):
    fields = field_table(1)
    cells = cells_of(fields, np.random.default_rng(3))
    one, two = land(tmp_path, "one", cells), land(tmp_path, "two", cells.tail(1))
    with pytest.raises(MorphobenchError, match="and so does another shard"):
        partition([one, two], fields, tmp_path / "c")
    with pytest.raises(MorphobenchError, match="which is not in the assay"):
        partition([one], fields[fields[WELL] != "A00"], tmp_path / "c")
    partition([one], fields, tmp_path / "c")
    with pytest.raises(MorphobenchError, match="other shards or fields"):
        partition([two], fields, tmp_path / "c")
    with pytest.raises(MorphobenchError, match="other shards or fields"):
        partition([one], fields.iloc[::-1], tmp_path / "c")
    cells.iloc[1:].to_parquet(one / SHARD_CELLS, index=False)  # measured again, to another end
    with pytest.raises(MorphobenchError, match="other shards or fields"):
        partition([one], fields, tmp_path / "c")


def test_the_second_call_reads_no_shard(tmp_path, monkeypatch):
    fields = field_table()
    shards = [land(tmp_path, "s", cells_of(fields, np.random.default_rng(4)))]
    first = partition(shards, fields, tmp_path / "c")
    monkeypatch.setattr(module, "_plan", lambda *a: pytest.fail("shards were read"))
    pd.testing.assert_frame_equal(partition(shards, fields, tmp_path / "c").counts, first.counts)


@pytest.mark.parametrize("operation", ["mean", "median"])
def test_the_bench_aggregates_as_pandas_does(operation):
    cells = cells_of(field_table(), np.random.default_rng(5))
    got = well_profiles(SingleCells.of_frame(cells, 10), operation).set_index(WELL_KEY)[NAMES]
    wanted = cells.astype(dict.fromkeys(NAMES, np.float64)).groupby(WELL_KEY)[NAMES].agg(operation)
    pd.testing.assert_frame_equal(got, wanted, check_exact=operation == "median")


def test_the_ratio_is_of_the_same_numbers(tmp_path):
    ratio = aggregation_ratio(tmp_path, 2_000, 7)
    assert ratio.ours_seconds > 0 and "2,000 cells x 7 features" in ratio.what


@pytest.mark.slow
def test_memory_is_that_of_a_block(tmp_path):
    """Three times the cells take no more memory than three blocks do."""
    for n in (1, 3):
        (tmp_path / str(n)).mkdir()
    one, three = (peak_memory(tmp_path / str(n), n * BLOCK_ROWS, 300) for n in (1, 3))
    assert three["median"]["cells"] == 3 * one["median"]["cells"]
    block = BLOCK_ROWS * 300 * 4 / 2**20
    for step in ("partition", "mean", "median"):
        assert three[step]["mib"] - one[step]["mib"] < 3 * block
