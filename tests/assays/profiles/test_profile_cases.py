"""What a profile file may hold: each case gives the right value or one clear fault, never another exception."""

from __future__ import annotations

import decimal
import gzip

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_feature_columns import COLUMNS, MEASURED, N, features, load, plan

from benchmark.assays.profiles.profile_numbers import LARGEST
from benchmark.assays.profiles.profile_table import ProfileTableSettings, load_profile_table
from benchmark.base.errors import FaultsError, MorphobenchError
from benchmark.base.tables import WELL_KEY

NOISE = np.random.default_rng(5).normal(size=N)


@pytest.mark.parametrize(("cell", "value"), [
    ("1.5", 1.5), (" 1.5 ", 1.5), ("+1.5", 1.5), ("-1e3", -1000.0), ("1e-400", 0.0), ("", np.nan), ("NA", np.nan),
    ("nan", np.nan), ("inf", np.nan), ("-Infinity", np.nan), ("1e400", np.nan), ("1e308", np.nan), ("1e39", np.nan),
    ("3e38", 3e38),
    ("1,5", "Write decimals with a point"), ("1.234,5", "Write decimals with a point"),
    ("1 000", "Write decimals with a point"), ("0x1F", "holds '0x1F'"), ("1_000", "holds '1_000'"),
    ("#DIV/0!", "holds '#DIV/0!'"), ("none", "holds 'none'"), ("True", "holds 'True'"), ("١٢", "holds '١٢'"),
    ("=1+1", "holds '=1"), ("<b>1</b>", "holds '<b>"), ("1\u200b", "features are numbers"),
])
def test_one_cell_of_a_csv(tmp_path, cell, value):
    table = plan().assign(X=NOISE.astype(object))
    table.loc[4, "X"] = cell
    if isinstance(value, str):
        with pytest.raises(FaultsError, match=value) as caught:
            load(tmp_path, table)
        assert len(caught.value.faults) == 1 and "p.csv, row 6" in str(caught.value)
        return
    found = load(tmp_path, table).features["X"]
    np.testing.assert_array_equal(found, [*NOISE[:4], value, *NOISE[5:]])


@pytest.mark.parametrize(("column", "wanted"), [
    (pa.array(NOISE, pa.float32()), NOISE.astype(np.float32)),
    (pa.array(NOISE.astype(np.float16), pa.float16()), NOISE.astype(np.float16)),
    (pa.array((NOISE * 100).astype(int), pa.int16()), (NOISE * 100).astype(int)),
    (pa.array([decimal.Decimal(f"{v:.2f}") for v in NOISE]), np.round(NOISE, 2)),
    (pa.array(NOISE).dictionary_encode(), NOISE),
    (pa.array(np.where(NOISE > 1, np.inf, NOISE)), np.where(NOISE > 1, np.nan, NOISE)),
    (pa.array(np.where(NOISE > 1, 1e308, NOISE)), np.where(NOISE > 1, np.nan, NOISE)),
    (pa.array([True, False] * (N // 2)), None),
    (pa.nulls(N), None),
    (pa.array([str(v) for v in NOISE]), "X is stored as text"),
    (pa.array([str(v) for v in NOISE], pa.large_string()), "X is stored as text"),
    (pa.array(["a", "b"] * (N // 2)).dictionary_encode(), "X holds 'a'"),
    (pa.array([[v] for v in NOISE]), "X is stored as list"),
    (pa.array([{"a": v} for v in NOISE]), "X is stored as struct"),
    (pa.array(range(N), pa.timestamp("s")), "X is stored as timestamp"),
    (pa.array([b"1"] * N), "X is stored as binary"),
])
def test_one_column_of_a_parquet_file(tmp_path, column, wanted):
    table = pa.Table.from_pandas(plan(), preserve_index=False).append_column("X", column)
    pq.write_table(table, tmp_path / "p.parquet")
    settings = ProfileTableSettings(profiles="p.parquet", columns=COLUMNS, prefixes=[])
    if isinstance(wanted, str):
        with pytest.raises(FaultsError, match=wanted) as caught:
            load_profile_table(settings, "mine", tmp_path)
        assert len(caught.value.faults) == 1
        return
    assay = load_profile_table(settings, "mine", tmp_path)
    if wanted is None:
        assert features(assay) == MEASURED
    else:
        np.testing.assert_allclose(assay.features["X"].to_numpy(float), np.asarray(wanted, float), rtol=1e-15)


def test_names_with_dots_are_columns_and_no_paths(tmp_path):
    table = plan().assign(**{"X.1": NOISE, "X.2": 2 * NOISE})
    for name in ("p.csv", "p.parquet"):
        np.testing.assert_array_equal(load(tmp_path, table, name).features["X.1"], NOISE)


def test_many_columns_of_text_are_one_fault(tmp_path):
    with pytest.raises(FaultsError, match=r"X holds 'a', and features are numbers \(24 rows\); 2 more columns.*Y, Z"):
        load(tmp_path, plan().assign(X="a", Y="b", Z="c"))


@pytest.mark.parametrize(("text", "message"), [
    ("net_0", "'net_0' appears 2 times"), (" net_0 ", "'net_0' appears 2 times"),
])
def test_names_that_appear_twice(tmp_path, text, message):
    rows = plan().to_csv(index=False).replace("net_1", text, 1)
    (tmp_path / "p.csv").write_text(rows)
    with pytest.raises(FaultsError, match=message):
        load_profile_table(ProfileTableSettings(profiles="p.csv", columns=COLUMNS, prefixes=[]), "mine", tmp_path)


@pytest.mark.parametrize(("change", "message"), [
    (lambda b: b"", "is empty"), (lambda b: b"\n\n", "is empty"),
    (lambda b: b.replace(b",", b";"), "has a single column.*Set assay.separator to ';'"),
    (lambda b: b.decode().encode("utf-16"), "is not UTF-8"), (lambda b: b[:-40], "cannot be read: truncated"),
    (lambda b: b.replace(b"\n", b",1\n", 3), "cannot be read|appears"), (lambda b: b + b"\"open", "cannot be read"),
    (lambda b: b[:200] + b"\0\0" + b[200:], "features are numbers|cannot be read|no column"),
])
def test_a_spoilt_csv(tmp_path, change, message):
    (tmp_path / "p.csv").write_bytes(change(plan().to_csv(index=False).encode()))
    with pytest.raises(MorphobenchError, match=message):
        load_profile_table(ProfileTableSettings(profiles="p.csv", columns=COLUMNS, prefixes=[]), "mine", tmp_path)


@pytest.mark.parametrize("kept", [0.99, 0.7, 0.3, 0.01])
def test_a_gzip_file_that_is_cut_off(tmp_path, kept):
    whole = gzip.compress(plan(compounds=40).to_csv(index=False).encode())
    (tmp_path / "p.csv.gz").write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(MorphobenchError, match="cannot be read"):
        load_profile_table(ProfileTableSettings(profiles="p.csv.gz", columns=COLUMNS, prefixes=[]), "mine", tmp_path)


def test_a_byte_order_mark_and_blank_columns_at_the_end(tmp_path):
    text = "\ufeff" + plan().to_csv(index=False).replace("\n", ",,\n")
    (tmp_path / "p.csv").write_text(text, encoding="utf-8")
    assay = load_profile_table(ProfileTableSettings(profiles="p.csv", columns=COLUMNS, prefixes=[]), "mine", tmp_path)
    assert features(assay) == MEASURED and "they have no name" in "\n".join(map(str, assay.left_out))


def test_wells_that_lack_values_are_said_before_anything_runs(tmp_path):
    table = plan()
    table.loc[2, MEASURED[:2]] = np.nan
    table.loc[5, MEASURED[:1]] = np.nan
    assay = load(tmp_path, table)
    said = "\n".join(map(str, assay.left_out))
    assert "3 of 72 values are missing, in 2 of 24 wells and 2 of 3 features" in said
    assert "1 of 24 wells are not used: they lack more than half of the features" in said and "(P1 A01)" in said
    (loss,) = assay.losses
    assert (loss.things, loss.lost, loss.total, loss.warns) == ("wells", 1, 24, False)
    assert assay.features_hash != load(tmp_path, plan()).features_hash


CELLS = st.one_of(st.floats(), st.integers(-2**70, 2**70), st.text(max_size=4), st.none(), st.booleans(),
                  st.sampled_from(["1,5", "0x1", "NA", "inf", "1e400", '"', "\n", "\0", "=A1"]))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(column=st.lists(CELLS, min_size=N, max_size=N), name=st.text(max_size=8),
       prefixes=st.sampled_from([[], ["net"]]), form=st.sampled_from(["csv", "parquet"]))
def test_any_column_is_features_that_keep_their_promises_or_a_fault(tmp_path_factory, column, name, prefixes, form):
    folder = tmp_path_factory.mktemp("any")
    table = plan()
    table.insert(5, name, pd.Series(column, dtype=object), allow_duplicates=True)
    if form == "parquet":
        try:
            table.to_parquet(folder / "p.parquet")
        except (pa.ArrowException, ValueError, TypeError, OverflowError):
            return  # parquet cannot hold it
    else:
        try:
            table.to_csv(folder / "p.csv", index=False)
        except UnicodeEncodeError:
            return
    given = ProfileTableSettings(profiles=f"p.{form}", columns=COLUMNS, prefixes=prefixes)
    try:
        assay = load_profile_table(given, "mine", folder)
    except MorphobenchError:
        return
    found = assay.features
    values = found[features(assay)].to_numpy(float)
    assert features(assay) and len(set(found.columns)) == len(found.columns)
    assert not np.isinf(values).any() and (np.abs(np.nan_to_num(values)) <= LARGEST).all()
    assert (~np.isnan(values)).any(axis=1).all() and (~np.isnan(values)).any(axis=0).all()
    wells = set(assay.fields[WELL_KEY].itertuples(index=False, name=None))
    assert set(found[WELL_KEY].itertuples(index=False, name=None)) == wells
