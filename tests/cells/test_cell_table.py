"""Single cells come once, whole wells at a time, the same from memory and from disk."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmark.base.errors import MorphobenchError
from benchmark.base.tables import FIELD_KEY, PLATE, SITE, WELL, WELL_KEY
from benchmark.cells.folder import COUNTS, INDEX, plate_file, with_groups, write_folder
from benchmark.cells.table import SingleCells

NUMBER, CENTRE = "Metadata_ObjectNumber", "Metadata_Nuclei_Location_Center_X"
NAMES = ["Cells_a", "Cells_b", "Nuclei_c"]
quick = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def cell_table(rng, cells=200, plates=("P/1", "p/1", "../x"), wells=("A01", "A02", "H12"), sites=(1, 2, 10)):
    """Cells thrown at random over fields, sorted, with missing values; the number is unique."""
    table = pd.DataFrame({PLATE: rng.choice(plates, cells), WELL: rng.choice(wells, cells),
                          SITE: rng.choice(sites, cells)})
    table = table.sort_values(FIELD_KEY, ignore_index=True)
    table[NUMBER] = np.arange(cells, dtype=np.int32)
    table[CENTRE] = rng.uniform(0, 500, cells).astype(np.float32)
    values = rng.normal(size=(cells, len(NAMES))).astype(np.float32)
    values[rng.random(values.shape) < 0.1] = np.nan
    return pd.concat([table, pd.DataFrame(values, columns=NAMES)], axis=1)


def on_disk(table, folder, block_rows=50):
    counts = table.groupby(FIELD_KEY).size().rename("cells").reset_index()
    index = pd.MultiIndex.from_frame(table[FIELD_KEY])

    def make(fields):
        return table[index.isin(pd.MultiIndex.from_frame(fields[FIELD_KEY]))].drop(columns=FIELD_KEY)

    write_folder(folder, counts, NAMES, make, block_rows)
    return SingleCells.open(folder)


def everything(cells, columns=None):
    parts = [block for plate in cells.plates for block in cells.blocks(plate, columns)]
    return pd.concat(parts, ignore_index=True)


def wells_of(table):
    return list(table[WELL_KEY].drop_duplicates().itertuples(index=False, name=None))


tables = st.builds(lambda seed, n: cell_table(np.random.default_rng(seed), n), st.integers(0, 999),
                   st.integers(1, 300))


@given(tables, st.integers(1, 400))
@quick
def test_blocks_cover_each_cell_once_in_whole_wells(table, rows):
    cells = SingleCells.of_frame(table.sample(frac=1, random_state=0).sort_values(NUMBER), rows)
    seen = []
    for plate in cells.plates:
        for block in cells.blocks(plate, [NUMBER]):
            assert len(block) <= rows or block[WELL].nunique() == 1
            assert (block[PLATE] == plate).all()
            seen.append(block)
    wells = [key for block in seen for key in wells_of(block)]
    assert len(wells) == len(set(wells))  # no well is in two blocks
    pd.testing.assert_frame_equal(pd.concat(seen, ignore_index=True), table[[*FIELD_KEY, NUMBER]])


@given(tables, st.integers(1, 400))
@quick
def test_a_folder_gives_what_memory_gives_bit_for_bit(table, rows):
    memory = SingleCells.of_frame(table, rows)
    with TemporaryDirectory() as name:
        disk = on_disk(table, Path(name) / "cells-x", rows)
        assert disk.features == memory.features == tuple(NAMES) and disk.plates == memory.plates
        pd.testing.assert_frame_equal(disk.counts, memory.counts, check_exact=True)
        columns = ["Nuclei_c", NUMBER, "Cells_a", CENTRE]
        for plate in memory.plates:
            for ours, theirs in zip(disk.blocks(plate, columns), memory.blocks(plate, columns), strict=True):
                pd.testing.assert_frame_equal(ours, theirs, check_exact=True)
        wells = wells_of(table)[::2]
        pd.testing.assert_frame_equal(disk.read(wells), memory.read(wells), check_exact=True)
        pd.testing.assert_frame_equal(disk.sample(wells, 20, 3), memory.sample(wells, 20, 3), check_exact=True)
    pd.testing.assert_frame_equal(everything(memory, [NUMBER, CENTRE, *NAMES]), table, check_exact=True)


def test_only_what_is_asked_for_is_read(tmp_path):
    table = cell_table(np.random.default_rng(0))
    disk = on_disk(table, tmp_path / "c")
    block = next(disk.blocks("P/1", ["Cells_b"], {"A02"}))
    assert list(block.columns) == [*FIELD_KEY, "Cells_b"] and set(block[WELL]) == {"A02"}
    assert block["Cells_b"].dtype == np.float32
    assert list(next(disk.blocks("P/1", [])).columns) == FIELD_KEY
    assert list(disk.blocks("no such plate")) == []
    empty = disk.read([("P/1", "Z99")])
    assert len(empty) == 0 and list(empty.columns) == [*FIELD_KEY, *NAMES]
    with pytest.raises(MorphobenchError, match="no column 'Cells_z'"):
        disk.blocks("P/1", ["Cells_z"])  # at once, not when the first block is asked for


def test_a_sample_takes_the_same_share_of_each_well_and_at_least_one_cell():
    counts = {"A01": 1000, "A02": 100, "A03": 1}
    table = pd.DataFrame({PLATE: "P", WELL: np.repeat(list(counts), list(counts.values())), SITE: 1})
    table["Cells_a"] = np.arange(len(table), dtype=np.float32)
    cells = SingleCells.of_frame(table)
    wells = [("P", w) for w in counts]
    drawn = cells.sample(wells, 110, 0)
    assert drawn[WELL].value_counts().to_dict() == {"A01": 100, "A02": 10, "A03": 1}
    assert drawn["Cells_a"].is_unique and set(drawn["Cells_a"]) <= set(table["Cells_a"])
    pd.testing.assert_frame_equal(drawn, cells.sample(wells[::-1], 110, 0))
    assert set(drawn["Cells_a"]) < set(cells.sample(wells, 500, 0)["Cells_a"])
    assert set(drawn["Cells_a"]) != set(cells.sample(wells, 110, 1)["Cells_a"])
    pd.testing.assert_frame_equal(cells.sample(wells, 5000, 0), cells.read(wells))
    assert cells.sample([("P", "A02")], 10, 0)["Cells_a"].between(1000, 1099).all()


@given(tables, st.data())
@quick
def test_without_leaves_out_fields_and_nothing_else(table, data):
    cells = SingleCells.of_frame(table, 40)
    fields = cells.counts
    first = fields[data.draw(st.lists(st.booleans(), min_size=len(fields), max_size=len(fields)))]
    second = fields.iloc[::3]
    out = cells.without(first).without(second)
    gone = pd.MultiIndex.from_frame(pd.concat([first, second])[FIELD_KEY])
    left = table[~pd.MultiIndex.from_frame(table[FIELD_KEY]).isin(gone)]
    assert len(out) == len(left) and set(out.plates) == set(left[PLATE])
    if len(left):
        pd.testing.assert_frame_equal(everything(out, [NUMBER]), left[[*FIELD_KEY, NUMBER]].reset_index(drop=True))
    assert set(out.sample(wells_of(table), 50, 0, [NUMBER])[NUMBER]) <= set(left[NUMBER])
    assert len(cells) == len(table)  # the first is what it was


def test_maps_compose_with_each_other_and_with_without():
    table = cell_table(np.random.default_rng(1))
    cells = SingleCells.of_frame(table, 40)
    doubled = cells.mapped(lambda plate, block: block.assign(**{f: block[f] * 2 for f in NAMES if f in block}),
                           by_feature=True)

    def summed(plate, block):
        return pd.DataFrame({"sum": block["Cells_a"] + block["Nuclei_c"], "plate": float(len(plate))})

    both = doubled.mapped(summed, ["sum", "plate"])
    out = cells.counts.iloc[[0, 5]]
    assert both.features == ("sum", "plate") and cells.features == tuple(NAMES)
    got = everything(both.without(out), [NUMBER, "sum"])
    pd.testing.assert_frame_equal(got, everything(doubled.without(out).mapped(summed, ["sum", "plate"]),
                                                  [NUMBER, "sum"]))
    by_hand = table.set_index(NUMBER).loc[got[NUMBER]]
    np.testing.assert_array_equal(got["sum"], (by_hand["Cells_a"] * 2 + by_hand["Nuclei_c"] * 2))
    assert list(next(doubled.blocks("P/1", ["Cells_b"])).columns) == [*FIELD_KEY, "Cells_b"]


@pytest.mark.parametrize("spoil", [lambda p, b: b.head(1), lambda p, b: b.drop(columns="Cells_b"),
                                   lambda p, b: b.iloc[::-1]])
def test_a_map_that_loses_rows_or_features_is_refused(spoil):
    cells = SingleCells.of_frame(cell_table(np.random.default_rng(2))).mapped(spoil)
    with pytest.raises(MorphobenchError, match="the mapped block"):
        next(cells.blocks("P/1"))


def test_a_table_without_sites_or_with_missing_keys():
    table = cell_table(np.random.default_rng(3)).drop(columns=SITE)
    cells = SingleCells.of_frame(table)
    assert (cells.counts[SITE] == 1).all() and len(cells) == len(table)
    with pytest.raises(MorphobenchError, match="without a plate"):
        SingleCells.of_frame(table.assign(**{WELL: None}))
    with pytest.raises(MorphobenchError, match="lacks the columns Metadata_Well"):
        SingleCells.of_frame(table.drop(columns=WELL))


def test_sites_may_be_text(tmp_path):
    table = cell_table(np.random.default_rng(4), sites=("s1", "s2"))
    disk = on_disk(table, tmp_path / "c")
    pd.testing.assert_frame_equal(everything(disk, [NUMBER, CENTRE, *NAMES]), table, check_exact=True)


def test_an_assay_without_any_cell(tmp_path):
    counts = pd.DataFrame({PLATE: ["P"], WELL: ["A"], SITE: [1], "cells": [0]}).iloc[:0]
    write_folder(tmp_path / "c", counts, [], lambda fields: pytest.fail("no block is made"))
    cells = SingleCells.open(tmp_path / "c")
    assert cells.plates == () and len(cells) == 0 and len(cells.read([("P", "A")])) == 0


def test_wells_that_do_not_lie_together_are_refused():
    counts = pd.DataFrame({PLATE: "P", WELL: ["A", "B", "A"], SITE: [1, 1, 2], "cells": 1})
    with pytest.raises(ValueError, match="do not lie together"):
        with_groups(counts, 10)


def test_folders_that_are_not_whole_are_refused(tmp_path):
    with pytest.raises(MorphobenchError, match="holds no single cells"):
        SingleCells.open(tmp_path)
    disk = on_disk(cell_table(np.random.default_rng(5)), tmp_path / "c")
    (tmp_path / "c" / plate_file("P/1")).unlink()
    with pytest.raises(MorphobenchError, match="lacks the cells of plate P/1"):
        list(disk.blocks("P/1"))
    counts = pd.read_parquet(tmp_path / "c" / COUNTS)
    counts.assign(cells=counts["cells"] + 1).to_parquet(tmp_path / "c" / COUNTS)
    with pytest.raises(MorphobenchError, match="is damaged"):
        list(SingleCells.open(tmp_path / "c").blocks("p/1"))
    (tmp_path / "c" / INDEX).write_text(json.dumps({"format": 0}))
    with pytest.raises(MorphobenchError, match="is of format 0"):
        SingleCells.open(tmp_path / "c")


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np, pandas as pd
from benchmark.cells.folder import write_folder
counts = pd.read_json(sys.argv[2], dtype={"Metadata_Well": str})
made = 0
def make(fields):
    global made
    made += 1
    if made == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    rows = int(fields["cells"].sum())
    seed = int(fields.index[0])
    return pd.DataFrame({"Cells_a": np.random.default_rng(seed).normal(size=rows).astype(np.float32)})
write_folder(Path(sys.argv[1]), counts, ["Cells_a"], make, 10)
print(made)
"""


def test_killed_anywhere_only_the_plate_under_way_is_made_again(tmp_path):
    plan = tmp_path / "counts.json"
    pd.DataFrame({PLATE: np.repeat(["P", "Q"], 3), WELL: ["A", "B", "C"] * 2, SITE: 1, "cells": 8}).to_json(plan)

    def run(folder, kill):
        command = [sys.executable, "-c", KILLED, str(folder), str(plan), str(kill)]
        return subprocess.run(command, capture_output=True, text=True, env=os.environ)

    assert run(tmp_path / "whole", 0).stdout.strip() == "6"
    assert run(tmp_path / "c", 5).returncode == -signal.SIGKILL  # in the middle of the second plate
    assert not (tmp_path / "c").exists()
    assert run(tmp_path / "c", 0).stdout.strip() == "3"  # the blocks of the second plate alone
    names = sorted(p.name for p in (tmp_path / "whole").iterdir())
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == names
    for name in names:
        assert (tmp_path / "c" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c", "counts.json", "whole"]
    assert run(tmp_path / "c", 1).stdout.strip() == "0"  # found again
