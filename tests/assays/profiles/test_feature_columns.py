"""Columns that are no measurement do not become features: numbers of rows, codes, names of files."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from benchmark.assays.profiles.feature_columns import aside_by_name
from benchmark.assays.profiles.profile_table import ProfileTableSettings, load_profile_table
from benchmark.base.errors import MorphobenchError

COLUMNS = {"plate": "Metadata_Plate", "well": "Metadata_Well", "compound": "Metadata_Compound",
           "concentration": "Metadata_Dose", "label": "Metadata_MOA"}
MEASURED = ["net_0", "net_1", "net_2"]


def plan(compounds=6, plates=2, replicates=2) -> pd.DataFrame:
    """Wells of two plates, sorted by label: three labels, and features that are noise."""
    rng = np.random.default_rng(0)
    rows = [(f"P{p}", f"{'ABCDEFGH'[r]}{c + 1:02d}", f"cpd-{c}", 10.0 ** (c % 3), f"M{c // 2}")
            for c in range(compounds) for p in range(plates) for r in range(replicates)]
    table = pd.DataFrame(rows, columns=list(COLUMNS.values()))
    return table.assign(**{name: rng.normal(size=len(table)) for name in MEASURED})


def load(folder, table, name="p.csv", **changes):
    if name.endswith(".parquet"):
        table.to_parquet(folder / name)
    else:
        table.to_csv(folder / name, index=False)
    options = {"profiles": name, "columns": COLUMNS, "prefixes": [], **changes}
    return load_profile_table(ProfileTableSettings(**options), "mine", folder)


def features(assay):
    return [c for c in assay.features if not c.startswith("Metadata_")]


N = len(plan())
LABEL_CODE = plan()["Metadata_MOA"].str[1:].astype(int)


@pytest.mark.parametrize(("name", "values", "why"), [
    ("", range(N), "they have no name"),
    ("Unnamed: 0", range(N), "they have no name"),
    ("index", range(3, N + 3), "they have no name"),
    ("level_0", range(N), "they have no name"),
    ("X", range(N), "they number rows"),
    ("X", range(1, N + 1), "they number rows"),
    ("X", np.random.default_rng(1).permutation(N), "they number rows"),
    ("X", np.cumsum(np.random.default_rng(1).integers(1, 4, N)), "they number rows"),
    ("X", -np.arange(N), "they number rows"),
    ("X", plan().groupby("Metadata_Plate").cumcount(), "they number rows"),
    ("X", [7.5] * N, "they hold one value in all rows"),
    ("X", LABEL_CODE, "they are codes of the label"),
    ("X", 2.5 - 0.1 * LABEL_CODE, "they are codes of the label"),
    ("X", pd.factorize(plan()["Metadata_Compound"])[0], "they are codes of the compound"),
    ("X", np.log10(plan()["Metadata_Dose"]), "they are codes of the dose"),
    ("X", plan()["Metadata_Plate"].str[1:].astype(int), "they are codes of the plate"),
    ("X", pd.factorize(plan()["Metadata_Well"])[0] * 2 + 1, "they are codes of the well"),
    ("X", plan()["Metadata_Well"].str[0].map(ord), "they are codes of the row of the plate"),
    ("image_id", np.random.default_rng(2).integers(0, 99, N), "their names say metadata"),
    ("AcquisitionDate", np.random.default_rng(2).integers(0, 99, N), "their names say metadata"),
    ("Row", np.random.default_rng(2).integers(0, 99, N), "their names say metadata"),
    ("in_focus", [True, False] * (N // 2), "they are yes or no"),
])
def test_a_column_that_measures_nothing_is_left_out_and_named(tmp_path, name, values, why):
    table = plan()
    table.insert(5, name, np.asarray(values))
    assay = load(tmp_path, table)
    assert features(assay) == MEASURED
    note = next(str(f) for f in assay.left_out if why in str(f))
    assert note.startswith(f"1 of 4 columns of p.csv left out: {why}") and repr(name) in note
    (loss,) = [x for x in assay.losses if why in x.why]
    assert (loss.things, loss.lost, loss.total, loss.warns) == ("features", 1, 4, False)


@pytest.mark.parametrize("values", [
    np.random.default_rng(3).integers(0, 50, N),  # whole numbers, as of spots in a well
    LABEL_CODE + np.random.default_rng(3).normal(0, 0.01, N),  # tells labels, and is measured
    np.where(np.arange(N) == 3, np.nan, LABEL_CODE),
])
def test_what_may_be_measured_stays(tmp_path, values):
    assert "X" in features(load(tmp_path, plan().assign(X=values)))


def test_a_small_table_holds_coincidences(tmp_path):
    table = plan(plates=1, replicates=1)
    table["X"] = [3, 1, 2, 5, 4, 6]
    assert "X" in features(load(tmp_path, table))


def test_one_value_a_label_is_said_where_labels_share_it(tmp_path):
    assay = load(tmp_path, plan().assign(X=np.where(LABEL_CODE == 0, 1, 4)))
    assert "X" in features(assay)
    assert "1 features have one value in all wells of a label ('X'): they may be codes of labels" in "\n".join(
        map(str, assay.left_out))


def test_a_column_named_in_full_is_a_feature(tmp_path):
    table = plan().assign(image_id=np.random.default_rng(2).integers(0, 99, N), X=range(N))
    assert features(load(tmp_path, table, prefixes=["net_", "image_id", "X"])) == [*MEASURED, "image_id", "X"]


def test_columns_by_prefix_are_looked_at_as_well(tmp_path):
    table = plan().rename(columns=lambda c: c.replace("net_", "Cells_net"))
    table["Cells_ID"], table["Cells_n"] = np.random.default_rng(2).permutation(N) + 0.5, range(N)
    table["Cells_AreaShape_Area"] = range(N)  # named as CellProfiler names what it measures
    found = load(tmp_path, table, prefixes=None)
    assert features(found) == ["Cells_net0", "Cells_net1", "Cells_net2", "Cells_AreaShape_Area"]


def test_nothing_is_left(tmp_path):
    table = plan().drop(columns=MEASURED).assign(X=range(N), Row=LABEL_CODE)
    with pytest.raises(MorphobenchError, match=r"has no feature.*'Row': their names say metadata; 'X': they number"):
        load(tmp_path, table)
    with pytest.raises(MorphobenchError, match=r"no feature that is a measurement: .*codes of the label"):
        load(tmp_path, plan().drop(columns=MEASURED).assign(X=LABEL_CODE))


@pytest.mark.parametrize("name", [
    "Cells_AreaShape_FormFactor", "Nuclei_Texture_InfoMeas1_DNA_3_00", "Cells_Neighbors_NumberOfNeighbors_5",
    "Cytoplasm_RadialDistribution_FracAtD_ER_4of4", "Cells_Correlation_K_DNA_RNA", "Cells_Intensity_Mean_Time",
    "efficientnet_12", "PC_1", "feature_0", "V1", "mitotic_index", "Solidity", "grid", "candidate",
])
def test_names_of_measurements(name):
    assert not aside_by_name([name], ())


@pytest.mark.parametrize("name", [
    "Unnamed: 3", " ", "__index_level_0__", "PlateID", "FileName_url", "ImageURL", "scan_time", "Timestamp", "well_row",
    "ImageNumber", "object_number", "cell_label", "Concentration", "moa",
])
def test_names_of_metadata(name):
    assert aside_by_name([name], ())


def test_measurements_of_objects_that_no_prefix_names_are_counted_and_warned_of(tmp_path):
    rng = np.random.default_rng(0)
    names = ["Cells_AreaShape_Area", "CellBodies_AreaShape_Area", "CellBodies_Texture_Contrast", "nuclei_Intensity_A"]
    table = plan().drop(columns=MEASURED).assign(**{name: rng.normal(size=N) for name in names})
    assay = load(tmp_path, table, prefixes=None)
    assert features(assay) == names[:1]
    (loss,) = assay.losses
    assert (loss.things, loss.lost, loss.total, loss.warns) == ("features", 3, 4, True)
    assert "CellBodies_ (2), nuclei_ (1)" in loss.why and "CellBodies_, nuclei_]" in loss.remedy
    assert features(load(tmp_path, table, prefixes=["Cells_", "CellBodies_", "nuclei_"])) == names


def test_a_number_of_objects_is_a_feature_where_it_is_named_in_full(tmp_path):
    foci = "Cells_Children_Foci_Count"
    table = plan().rename(columns=lambda c: c.replace("net_", "Cells_net"))
    table[foci] = np.random.default_rng(1).normal(size=N)
    left = load(tmp_path, table, prefixes=None)
    assert foci not in features(left)
    assert any(foci in n.what and "give its whole name in assay.prefixes" in n.remedy for n in left.left_out)
    assert foci in features(load(tmp_path, table, prefixes=["Cells_", foci]))


def test_rows_that_stand_twice_in_a_well_are_a_warning(tmp_path):
    table = plan().assign(**{f"net_{i}": np.random.default_rng(i).normal(size=N) for i in range(6)})
    assert not any(n.warns for n in load(tmp_path, table).left_out)
    notes = load(tmp_path, pd.concat([table, table.iloc[3:5]])).left_out
    (note,) = [n for n in notes if n.warns]
    assert "2 of 26 rows repeat another row of their well" in note.what and "in 2 wells" in note.what
