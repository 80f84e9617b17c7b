"""Profiles without images: the published ones of BBBC021, and a user's own in every form."""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_bbbc import write_bbbc021
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from benchmark.assays.bbbc.bbbc021_profiles import Bbbc021ProfilesSettings, load_bbbc021_profiles
from benchmark.assays.profiles.profile_file import PREFIXES, is_feature, read_header
from benchmark.assays.profiles.profile_numbers import LARGEST
from benchmark.assays.profiles.profile_table import ProfileTableSettings, load_profile_table
from benchmark.base.errors import FaultsError, MorphobenchError
from benchmark.base.tables import (
    BATCH,
    CELL_LINE,
    COMPOUND,
    CONCENTRATION,
    CONTROL,
    LABEL,
    PLATE,
    REPLICATE,
    WELL,
    WELL_KEY,
)
from benchmark.cells.objects import BOOKKEEPING
from benchmark.folds.make import make_split
from benchmark.workflow.study import load_study

LJOSA = "bbbc021_profiles/ljosa_jbiomolscreen_2013_per_well_mean.csv.gz"


@pytest.fixture
def published(data_folder):
    return load_bbbc021_profiles(
        Bbbc021ProfilesSettings(profiles=str(data_folder / LJOSA), metadata=str(data_folder / "bbbc021_metadata")),
        "bbbc021-profiles", Path())


def test_the_published_profiles(published, data_folder):
    assert len(published.fields) == len(published.features) == 632 and published.channels == ()
    treated = published.treated
    assert len(treated) == 302 and (published.fields[CONTROL] == "negative").sum() == 330
    assert len(treated.drop_duplicates([COMPOUND, CONCENTRATION])) == 103 and treated[COMPOUND].nunique() == 38
    assert len(published.labels) == 12 and published.fields[PLATE].nunique() == 55
    # The file holds taxol as the paper has it, and nothing else of it: no rule had to leave a profile out.
    taxol = treated[treated[COMPOUND] == "taxol"]
    assert len(taxol) == 9 and set(taxol[BATCH]) == {"Week1"} and set(taxol[WELL]) == {"D03", "D04", "D05"}
    assert [str(f).split(" of ")[0] for f in published.left_out] == ["57"]
    columns = [c for c in published.features if c not in WELL_KEY]
    assert len(columns) == 459 and len(published.features_hash) == 64


def test_the_study_holds_out_38_compounds(data_folder, monkeypatch):
    monkeypatch.setenv("MORPHOBENCH_DATA", str(data_folder))
    study = load_study("bbbc021-profiles")
    split = make_split(load_bbbc021_profiles(study.assay, study.name, Path()), "a" * 64, study.split)
    assert len(split.folds) == 38 and sum(len(f.test) for f in split.folds) == 302
    assert "330 negative-control wells" in " ".join(split.left_out)


def test_published_values_arrive_under_their_well(published, data_folder):
    raw = pd.read_csv(data_folder / LJOSA)
    features = [c for c in published.features if c not in WELL_KEY]
    assert len(features) == 459 and set(features) < set(raw.columns) and raw.shape[1] - 2 == 516
    merged = published.features.merge(raw, left_on=WELL_KEY, right_on=["Image_Metadata_Plate", "Image_Metadata_Well"],
                                      suffixes=("", "_raw"))
    assert len(merged) == 632
    for feature in features[::40]:
        np.testing.assert_array_equal(merged[feature], merged[f"{feature}_raw"])
    assert np.isfinite(published.features[features].to_numpy()).all()


def test_features_are_those_that_our_own_cellprofiler_tables_keep(data_folder):
    """One rule for published, users' and our own measurements."""
    for column in read_header(data_folder / LJOSA, ",")[2:]:
        assert is_feature(column, PREFIXES) == (BOOKKEEPING.fullmatch(column.split("_", 1)[1]) is None), column


def test_profiles_of_other_wells_of_the_screen_are_left_out_and_of_no_well_refused(tmp_path):
    write_bbbc021(tmp_path / "csv", images=False)
    wells = [("Week1_22123", w) for w in ("B02", "C02", "D04", "D05", "D07", "E03", "F03", "F04", "G09")]
    table = pd.DataFrame(wells, columns=["Image_Metadata_Plate", "Image_Metadata_Well"])
    table["Cells_AreaShape_Area"] = np.arange(len(wells), dtype=float)
    table.to_csv(tmp_path / "p.csv", index=False)
    options = Bbbc021ProfilesSettings(profiles="p.csv", metadata="csv")
    assay = load_bbbc021_profiles(options, "p", tmp_path)
    kept = ["B02", "C02", "D04", "D05", "E03", "F03", "F04"]
    assert sorted(assay.fields[WELL]) == sorted(assay.features[WELL]) == kept
    said = "\n".join(map(str, assay.left_out))
    assert "2 wells of p.csv left out: no mechanism" in said and "wells of the metadata left out" in said
    table.loc[0, "Image_Metadata_Well"] = "P24"
    table.to_csv(tmp_path / "p.csv", index=False)
    with pytest.raises(FaultsError, match="1 of 9 wells have no metadata, for example Week1_22123 P24"):
        load_bbbc021_profiles(options, "p", tmp_path)
    with pytest.raises(MorphobenchError, match="does not exist"):
        load_bbbc021_profiles(Bbbc021ProfilesSettings(profiles="none.csv"), "p", tmp_path)


# --- a user's own table ---------------------------------------------------------------------------------------------

COLUMNS = {"batch": {"column": "Metadata_Plate", "pattern": r"^(W\d+)_"}, "plate": "Metadata_Plate",
           "well": "Metadata_Well", "compound": "Drug", "concentration": "Dose", "label": "MoA", "cell_line": "Line"}
FEATURES = ["Cells_AreaShape_Area", "Nuclei_Texture_Entropy_DNA_3_00_256", "Cytoplasm_Intensity_Mean"]


def _plan() -> pd.DataFrame:
    """Six compounds of two labels and DMSO, on two plates."""
    rows = [(f"W{p}_P{p}", f"A{c + 1:02d}", "DMSO" if c == 0 else f"drug {c}", "" if c == 0 else str(c / 10),
             "" if c == 0 else "xy"[c % 2], "U2OS") for p in (1, 2) for c in range(7)]
    return pd.DataFrame(rows, columns=["Metadata_Plate", "Metadata_Well", "Drug", "Dose", "MoA", "Line"])


def _features(wells: pd.DataFrame, cells: int = 1, seed: int = 0) -> pd.DataFrame:
    """One or many rows a well, with what CytoTable and pycytominer write beside features."""
    table = wells.loc[wells.index.repeat(cells)].reset_index(drop=True)
    rng = np.random.default_rng(seed)
    table.insert(2, "Metadata_ImageNumber", np.arange(len(table)) // cells)
    for i, name in enumerate(FEATURES):
        table[name] = rng.normal(i, 1, len(table))
    table["Cells_Location_Center_X"] = rng.uniform(0, 500, len(table))
    table["Nuclei_Number_Object_Number"] = np.arange(len(table))
    table["Image_FileName_DNA"] = "a.tif"
    return table


def _write(table: pd.DataFrame, path: Path) -> None:
    if path.suffix == ".parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False)


def _load(folder: Path, name: str = "p.csv", **changes):
    options = {"profiles": name, "columns": COLUMNS, "negative_controls": ["DMSO"], **changes}
    return load_profile_table(ProfileTableSettings(**options), "mine", folder)


@pytest.mark.parametrize("name", ["p.csv", "p.csv.gz", "p.parquet"])
@pytest.mark.parametrize("cells", [1, 5])
def test_forms_and_files(tmp_path, name, cells):
    table = _features(_plan(), cells)
    _write(table, tmp_path / name)
    assay = _load(tmp_path, name)
    assert len(assay.fields) == 14 and len(assay.features) == 14 * cells and assay.channels == ()
    assert [*assay.features] == [*WELL_KEY, *FEATURES]
    np.testing.assert_allclose(assay.features["Cells_AreaShape_Area"], table["Cells_AreaShape_Area"], rtol=1e-12)
    assert assay.features[WELL_KEY].equals(table[WELL_KEY])
    row = assay.fields[(assay.fields[COMPOUND] == "drug 3") & (assay.fields[PLATE] == "W2_P2")].iloc[0]
    assert (row[BATCH], row[WELL], row[CONCENTRATION], row[LABEL], row[CONTROL], row[CELL_LINE], row[REPLICATE]) == (
        "W2", "A04", 0.3, "y", "", "U2OS", 1)
    assert assay.labels == ["x", "y"]
    assert any("2 of 5 columns" in str(f) for f in assay.left_out)


@pytest.mark.parametrize("cells", [1, 4])
def test_one_well_under_two_names_is_refused(tmp_path, cells):
    """As one image under two wells is: each would be the other's nearest neighbour."""
    table = _features(_plan(), cells)
    wells = table[WELL_KEY].drop_duplicates()
    rows = [table.index[(table[WELL_KEY] == wells.iloc[i]).all(axis=1)] for i in (1, 3)]
    names = [c for c in table if c not in WELL_KEY]
    table.loc[rows[1], names] = table.loc[rows[0][::-1], names].to_numpy()
    _write(table, tmp_path / "p.csv")
    with pytest.raises(FaultsError, match="2 wells have the very same features"):
        _load(tmp_path, "p.csv")


def test_the_hash_is_of_the_file_and_of_what_is_taken_from_it(tmp_path):
    table = _features(_plan(), 1)
    _write(table, tmp_path / "p.csv")
    first, again = _load(tmp_path, "p.csv"), _load(tmp_path, "p.csv")
    narrow = _load(tmp_path, "p.csv", prefixes=["Cells_"])
    assert first.features_hash == again.features_hash != narrow.features_hash
    _write(table.assign(Cells_AreaShape_Area=1.0 + table["Cells_AreaShape_Area"]), tmp_path / "p.csv")
    assert _load(tmp_path, "p.csv").features_hash not in (first.features_hash, narrow.features_hash)


def test_metadata_of_their_own_are_joined_by_plate_and_well(tmp_path):
    plan = _plan()
    profiles = _features(plan[["Metadata_Plate", "Metadata_Well"]]).rename(
        columns={"Metadata_Plate": "Image_Metadata_Plate", "Metadata_Well": "Position"})
    _write(profiles.sample(frac=1, random_state=1), tmp_path / "p.csv")
    lacking = pd.DataFrame([("W1_P1", "H12", "drug 1", "0.1", "y", "U2OS")], columns=plan.columns)
    with gzip.open(tmp_path / "plan.csv.gz", "wt") as handle:
        pd.concat([plan, lacking]).to_csv(handle, index=False)
    assay = _load(tmp_path, metadata="plan.csv.gz", well_column="Position")
    assert len(assay.fields) == 14
    assert "1 wells of the metadata left out: p.csv has no profile of them (W1_P1 H12)" in str(assay.left_out[-1])
    with pytest.raises(MorphobenchError, match=r"Metadata_Well or Image_Metadata_Well.*assay.well_column.*Position"):
        _load(tmp_path, metadata="plan.csv.gz", columns=COLUMNS, well_column=None)
    # Wells spelt otherwise are no wells of the metadata: said, with an example of each.
    for old, new, message in (("A0", "A", "plate 'W1_P1', well 'A1' here is plate 'W1_P1', well 'A01' there"),
                              ("A0", "X", "like W1_P1 A01: plate and well must be spelt alike")):
        _write(profiles.assign(Position=profiles["Position"].str.replace(old, new)), tmp_path / "p.csv")
        for unlabelled in ("refuse", "leave_out"):
            with pytest.raises(FaultsError, match=rf"14 of 14 wells have no metadata.*W1_P1 {new}1.*{message}"):
                _load(tmp_path, metadata="plan.csv.gz", well_column="Position", unlabelled=unlabelled)


def test_cytotable_parquet(tmp_path):
    """Columns as CytoTable joins CellProfiler's tables; the metadata beside them."""
    plan = _plan()
    cells = _features(plan[["Metadata_Plate", "Metadata_Well"]], cells=4).rename(
        columns={"Metadata_Plate": "Image_Metadata_Plate", "Metadata_Well": "Image_Metadata_Well"})
    cells.insert(3, "Image_Metadata_Site", np.arange(len(cells)) % 4 // 2 + 9)
    for name in ("Metadata_ObjectNumber", "Metadata_Cells_Parent_Nuclei", "Metadata_Cytoplasm_Parent_Cells"):
        cells[name] = np.arange(len(cells)) % 4 + 1
    cells = cells.astype(dict.fromkeys(FEATURES, np.float32))
    cells.to_parquet(tmp_path / "p.parquet")
    plan.to_csv(tmp_path / "plan.csv", index=False)
    assay = _load(tmp_path, "p.parquet", metadata="plan.csv")
    assert [*assay.features] == [*WELL_KEY, "Metadata_Site", *FEATURES] and len(assay.features) == 56
    assert assay.features["Metadata_Site"].tolist()[:5] == [9, 9, 10, 10, 9]
    assert (assay.features[FEATURES].to_numpy() == cells[FEATURES].to_numpy()).all()
    assert (assay.features[FEATURES].dtypes == np.float32).all()


def test_wells_without_label(tmp_path):
    plan = _plan()
    plan.loc[plan["Drug"] == "drug 5", "MoA"] = ""
    _write(_features(plan), tmp_path / "p.csv")
    with pytest.raises(FaultsError, match=r"p.csv, rows 7, 14: MoA is empty and the well is no control. Their "
                                          "compounds are 'drug 5': add those"):
        _load(tmp_path)
    kept = _load(tmp_path, unlabelled="keep")
    assert "drug 5" in set(kept.fields[COMPOUND]) - set(kept.treated[COMPOUND])
    less = _load(tmp_path, unlabelled="leave_out")
    assert len(less.fields) == len(less.features) == 12 and "drug 5" not in set(less.fields[COMPOUND])
    assert "2 wells of p.csv left out: they have no label" in "\n".join(map(str, less.left_out))


def test_infinities_empty_columns_and_empty_rows(tmp_path):
    table = _features(_plan())
    names = FEATURES
    table.loc[1, names[0]] = np.inf
    table.loc[2, names[0]] = -np.inf
    table.loc[3, names] = np.nan
    table["Cells_Empty_Feature"] = np.nan
    _write(table, tmp_path / "p.csv")
    assay = _load(tmp_path)
    values = assay.features[names].to_numpy()
    assert len(assay.features) == 13 and np.isnan(values[1:3, 0]).all() and not np.isinf(values).any()
    assert "Cells_Empty_Feature" not in assay.features
    said = "\n".join(map(str, assay.left_out))
    for message in ("2 infinite values", "1 features left out", "1 rows left out", "(W1_P1 A04)"):
        assert message in said, said


@pytest.mark.parametrize("name", ["p.csv", "p.parquet"])
def test_features_that_hold_text(tmp_path, name):
    table = _features(_plan())
    table["Cells_Note"] = ["1.5", "", *["out of focus"] * 12]
    _write(table, tmp_path / name)
    with pytest.raises(FaultsError) as caught:
        _load(tmp_path, name)
    assert "Cells_Note holds 'out of focus', and features are numbers" in str(caught.value)
    assert f"{name}, row 4" in str(caught.value)
    if name.endswith("parquet"):
        table["Cells_Note"] = "1.5"  # numbers, but as text
        _write(table, tmp_path / name)
        with pytest.raises(FaultsError, match="Cells_Note is stored as"):
            _load(tmp_path, name)


def test_columns_that_are_doubled_missing_or_not_wanted(tmp_path):
    table = _features(_plan())
    text = table.to_csv(index=False)
    (tmp_path / "p.csv").write_text(text.replace("Cytoplasm_Intensity_Mean", "Cells_AreaShape_Area", 1))
    with pytest.raises(FaultsError, match="'Cells_AreaShape_Area' appears 2 times"):
        _load(tmp_path)
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(FaultsError, match=r"no column 'Mechanism', wanted in assay\.columns"):
        _load(tmp_path, columns={**COLUMNS, "label": "Mechanism"})
    with pytest.raises(MorphobenchError, match=r"no feature.*Set assay.prefixes; columns start with .*Cells_"):
        _load(tmp_path, prefixes=["Golgi_"])
    # Without prefixes every column counts that is neither metadata nor bookkeeping.
    (tmp_path / "p.csv").write_text(text.replace("Cytoplasm_", "embedding_"))
    assert "embedding_Intensity_Mean" in _load(tmp_path, prefixes=[]).features
    assert "embedding_Intensity_Mean" not in _load(tmp_path).features
    with pytest.raises(FaultsError, match="negative_controls names 'water', a compound that no row has"):
        _load(tmp_path, negative_controls=["DMSO", "water"])


def test_rows_of_a_well_that_disagree(tmp_path):
    table = _features(_plan(), cells=3)
    table.loc[4, "Drug"] = "drug 6"
    _write(table, tmp_path / "p.csv")
    with pytest.raises(FaultsError, match="plate W1_P1, well A02: rows of the well disagree on Drug"):
        _load(tmp_path)


def test_broken_files_are_named(tmp_path):
    _write(_features(_plan()), tmp_path / "p.parquet")
    _write(_features(_plan()), tmp_path / "p.csv.gz")
    for name in ("p.parquet", "p.csv.gz"):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[:-30])
        with pytest.raises(MorphobenchError, match=rf"{name}: cannot be read"):
            _load(tmp_path, name)
    text = _features(_plan()).to_csv(index=False)
    (tmp_path / "p.csv").write_text(text[:-60])  # cut off within the last row
    with pytest.raises(MorphobenchError, match="cannot be read: truncated"):
        _load(tmp_path)
    (tmp_path / "p.csv").write_text(text.split("\n")[0] + "\n")
    with pytest.raises(MorphobenchError, match="has no rows"):
        _load(tmp_path)
    (tmp_path / "p.csv").write_bytes(text.replace("drug 1", "5µ").encode("latin-1"))
    with pytest.raises(MorphobenchError, match="not UTF-8"):
        _load(tmp_path)
    (tmp_path / "p.pkl").write_bytes(b"x")
    with pytest.raises(MorphobenchError, match="neither parquet nor CSV"):
        _load(tmp_path, "p.pkl")
    with pytest.raises(MorphobenchError, match="does not exist"):
        _load(tmp_path, "none.csv")


@pytest.mark.parametrize(("changes", "message"), [
    ({"columns": {"plate": "p"}}, "lacks well"), ({"columns": {**COLUMNS, "site": "s"}}, "site"),
    ({"positive_controls": ["DMSO"]}, "both a negative and a positive"),
    ({"columns": {**COLUMNS, "plate": {"column": "a", "pattern": "(.)"}}}, "without a pattern"),
    ({"plate_column": "x"}, "without `metadata`"), ({"profile": "x"}, "profile"),
])
def test_settings_are_checked(changes, message):
    with pytest.raises(ValidationError, match=message):
        ProfileTableSettings(**{"profiles": "p.csv", "columns": COLUMNS, "negative_controls": ["DMSO"], **changes})


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(14)), st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=14, max_size=14))
def test_any_order_and_any_number(tmp_path_factory, order, values):
    """The order of rows says nothing, and numbers arrive as they are; what is no number becomes missing."""
    folder = tmp_path_factory.mktemp("any")
    table = _features(_plan())
    table["Cells_AreaShape_Area"] = values
    _write(table.iloc[list(order)], folder / "p.csv")
    assay = _load(folder)
    if "Cells_AreaShape_Area" not in assay.features:
        assert not (np.abs(values) <= LARGEST).any()
        return
    found = assay.features.set_index(WELL_KEY)["Cells_AreaShape_Area"]
    for plate, well, value in zip(table["Metadata_Plate"], table["Metadata_Well"], values, strict=True):
        got = found[plate, well]
        assert got == value if abs(value) <= LARGEST else np.isnan(got)
