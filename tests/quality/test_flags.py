"""Flags are robust within a plate, spare phenotypes, and find each defect in a plate of sound fields."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pandas as pd
import pytest
from conftest import field_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.base.tables import COMPOUND, FIELD_KEY
from benchmark.quality.flags import FEWEST_PEERS, RULES, flag_fields, robust_deviations
from benchmark.quality.measures import column, plane_quality
from benchmark.quality.settings import QualitySettings

SETTINGS = QualitySettings(flagged="keep", deviations=6.0)
#: Usual values of each measure, and how far sound fields differ.
USUAL = {"Slope": (-1.0, 0.1), "Maximum": (4000, 50), "AtMaximum": (1e-5, 1e-6), "Contrast": (100, 10),
         "Foreground": (0.3, 0.03), "Bright": (1000, 50), "Patch": (0.002, 0.0002)}


def plan(**kinds: int) -> pd.DataFrame:
    return field_rows(**{"labels": 2, "compounds": 3, "plates": 2, "sites": 4} | kinds).assign(Metadata_CellLine="")


def usual(fields: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return fields[FIELD_KEY].assign(**{column(m, "DNA"): rng.normal(mean, sd, len(fields))
                                       for m, (mean, sd) in USUAL.items()})


def flags(
    measures: pd.DataFrame, fields: pd.DataFrame, counts: pd.DataFrame | None = None, **more: object
) -> pd.DataFrame:
    return flag_fields(measures, fields, ("DNA",), SETTINGS.model_copy(update=more), counts)


@pytest.mark.parametrize(("measure", "value", "reason"), [
    ("Slope", -2.5, "out of focus"), ("Slope", 0.8, "noise"), ("AtMaximum", 0.05, "saturated"),
    ("Contrast", 5.0, "empty"), ("Foreground", 0.005, "empty"), ("Bright", 9000.0, "debris"), ("Patch", 0.05, "debris"),
])
def test_one_unusual_field_is_flagged_alone(measure, value, reason):
    fields = plan()
    measures = usual(fields)
    measures.loc[17, column(measure, "DNA")] = value
    found = flags(measures, fields)
    assert found[FIELD_KEY].to_numpy().tolist() == fields.loc[[17], FIELD_KEY].to_numpy().tolist()
    row = found.iloc[0]
    assert reason in row["reason"] and "in DNA" in row["reason"] and row["value"] == pytest.approx(value)
    name = "Saturated" if measure == "AtMaximum" else measure
    assert row["measure"] == f"{name}_DNA" and abs(row["deviations"]) > 6
    assert row["plate median"] == pytest.approx(USUAL[measure][0], rel=0.2)


@pytest.mark.parametrize(("measure", "value"), [
    ("Contrast", 9e4), ("Foreground", 0.99), ("Bright", 1.0), ("Patch", 1e-6), ("AtMaximum", 0.0),
])
def test_only_the_bad_side_is_flagged(measure, value):
    fields = plan()
    measures = usual(fields)
    measures.loc[17, column(measure, "DNA")] = value
    assert flags(measures, fields).empty


def test_a_phenotype_is_spared_and_its_one_blurred_field_is_not():
    """All fields of a treatment lie far from their plates: that is what the assay is about."""
    fields = plan()
    measures = usual(fields)
    mine = fields.index[fields[COMPOUND] == "cpd-00"]
    measures.loc[mine, "Slope_DNA"] -= 3
    measures.loc[mine, "Foreground_DNA"] = 0.003
    assert flags(measures, fields).empty
    measures.loc[mine[2], "Slope_DNA"] -= 3
    found = flags(measures, fields)
    assert found[FIELD_KEY].to_numpy().tolist() == fields.loc[[mine[2]], FIELD_KEY].to_numpy().tolist()


def test_a_well_out_of_focus_is_seen_by_its_replicate():
    """Peers are other wells' fields first: the same well's are blurred with it."""
    fields = plan()
    measures = usual(fields)
    well = fields.index[(fields[COMPOUND] == "cpd-01") & (fields["Metadata_Plate"] == "P1")]
    measures.loc[well, "Slope_DNA"] -= 3
    assert len(flags(measures, fields)) == len(well) == 4


def test_where_peers_are_too_few_the_plate_decides_alone():
    fields = plan(sites=1, plates=1, labels=2, compounds=8)
    assert len(fields[fields[COMPOUND] == "cpd-00"]) - 1 < FEWEST_PEERS
    measures = usual(fields)
    measures.loc[0, "Slope_DNA"] -= 3
    assert len(flags(measures, fields)) == 1


def test_a_plate_of_equal_values_flags_no_trifle():
    fields = plan()
    measures = usual(fields)
    for measure, (mean, _) in USUAL.items():
        measures[column(measure, "DNA")] = float(mean)
    for rule in RULES:
        changed = measures.copy()
        name = column("AtMaximum" if rule.measure == "Saturated" else rule.measure, "DNA")
        value = changed.loc[3, name]
        step = 0.9 * rule.least * rule.side
        changed.loc[3, name] = value * 2**step if rule.scale == "log2" else value + step
        assert flags(changed, fields).empty, rule
        step *= 1.2
        changed.loc[3, name] = value * 2**step if rule.scale == "log2" else value + step
        assert len(flags(changed, fields)) == 1, rule


def test_a_dark_image_of_few_levels_is_not_saturated():
    fields = plan()
    measures = usual(fields)
    measures.loc[5, ["Maximum_DNA", "AtMaximum_DNA"]] = [3, 0.2]
    assert flags(measures, fields).empty
    measures.loc[5, "Maximum_DNA"] = 3000
    assert flags(measures, fields)["measure"].tolist() == ["Saturated_DNA"]


def test_few_cells_are_flagged_where_the_treatment_has_more():
    fields = plan()
    measures = usual(fields)
    rng = np.random.default_rng(0)
    counts = fields[FIELD_KEY].assign(cells=rng.poisson(80, len(fields)))
    assert flags(measures, fields, counts).empty
    toxic = fields.index[fields[COMPOUND] == "cpd-10"]
    counts.loc[toxic, "cells"] = [2, 0, 0, 1, 0, 3, 0, 1]  # a phenotype
    counts.loc[40, "cells"] = 6
    counts.loc[44, "cells"] = 900  # many cells are no fault
    counts.loc[41, "cells"] = 0
    assert not {40, 41, 44} & set(toxic)
    found = flags(measures, fields, counts)
    assert found[FIELD_KEY].to_numpy().tolist() == fields.loc[[40, 41], FIELD_KEY].to_numpy().tolist()
    assert found["measure"].eq("cells").all() and found["value"].tolist() == [6, 0]
    assert "few cells: 6, plate 7" in found["reason"][0] or "few cells: 6, plate 8" in found["reason"][0]
    assert flags(measures, fields, counts, cell_count=False).empty


def test_a_field_that_was_not_counted_is_not_taken_for_an_empty_one():
    fields = plan()
    measures = usual(fields)
    counts = fields[FIELD_KEY].assign(cells=np.random.default_rng(0).poisson(80, len(fields)))
    assert flags(measures, fields, counts.drop(index=[9, 41])).empty
    assert flags(measures, fields, counts.iloc[:0]).empty


def test_at_the_default_setting_five_sixths_of_the_least_difference_are_flagged():
    fields = plan()
    measures = usual(fields)
    measures["Slope_DNA"] = -1.0  # alike, so that the rule's least difference decides: 0.5 at 6 deviations
    default = QualitySettings().deviations
    assert default == 5.0
    for difference, n in ((0.41, 0), (0.43, 1)):
        measures.loc[3, "Slope_DNA"] = -1.0 - difference
        assert len(flags(measures, fields, deviations=default)) == n
    assert flags(measures, fields).empty


def test_no_cells_are_flagged_however_far_counts_spread():
    fields = plan()
    counts = fields[FIELD_KEY].assign(cells=np.tile([5, 30, 90, 200], len(fields) // 4))
    counts.loc[9, "cells"] = 0
    assert flags(usual(fields), fields, counts)["value"].tolist() == [0]


def test_small_plates_are_compared_with_all_fields():
    values = np.array([*np.random.default_rng(0).normal(0, 1, 40), 5.0, 5.1, 4.9])
    plates = np.array(["A"] * 40 + ["B"] * 3)
    deviations, middle = robust_deviations(values, plates, 0.0)
    assert (deviations[-3:] > 4).all() and middle[-1] == np.median(values)
    assert middle[0] == np.median(values[:40])
    lone, _ = robust_deviations(values[:5], np.array(["A"] * 5), 6.0)
    assert np.allclose(lone, values[:5] - np.median(values[:5])) or np.abs(lone).max() < 6


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.1, 50), st.floats(-100, 100))
def test_deviations_do_not_hang_on_unit_or_order(seed, factor, shift):
    rng = np.random.default_rng(seed)
    values, plates = rng.normal(size=60), rng.choice(list("ABC"), 60)
    one, _ = robust_deviations(values, plates, 0.0)
    other, _ = robust_deviations(values * factor + shift, plates, 0.0)
    assert np.allclose(one, other, atol=1e-6)
    order = rng.permutation(60)
    assert np.allclose(robust_deviations(values[order], plates[order], 0.0)[0], one[order])


def test_a_third_of_bad_fields_does_not_hide_them():
    values = np.random.default_rng(1).normal(0, 1, 60)
    values[:20] += 50
    deviations, _ = robust_deviations(values, np.array(["P"] * 60), 0.0)
    assert (deviations[:20] > 6).all() and (deviations[20:] < 6).all()


def _cells(rng: np.random.Generator) -> np.ndarray:
    plane = np.zeros((160, 160))
    for y, x in rng.integers(8, 152, (int(rng.integers(25, 40)), 2)):
        cv2.circle(plane, (int(x), int(y)), 5, float(rng.normal(500, 60)), -1)
    return cv2.GaussianBlur(plane, (0, 0), 0.8) + 300


def _debris(plane: np.ndarray) -> np.ndarray:
    plane = plane.copy()
    cv2.line(plane, (20, 140), (120, 90), 4000.0, 12)
    return plane


DEFECTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "out of focus": lambda p: cv2.GaussianBlur(p, (0, 0), 6.0),
    "saturated": lambda p: np.minimum(p * 8, 4095.0),
    "empty": lambda p: np.full_like(p, 300.0),
    "debris": _debris,  # a fibre
    "noise": lambda p: p + np.random.default_rng(9).normal(0, 500, p.shape),
}


@pytest.fixture(scope="module")
def drawn() -> tuple[pd.DataFrame, list[np.ndarray]]:
    rng = np.random.default_rng(5)
    fields = plan(sites=2)
    return fields, [_cells(rng) for _ in range(len(fields))]


def _measures(fields: pd.DataFrame, planes: list[np.ndarray]) -> pd.DataFrame:
    rng = np.random.default_rng(6)
    taken = [np.clip(p + rng.normal(0, 10, p.shape), 0, 4095).round().astype(np.uint16) for p in planes]
    rows = pd.DataFrame([{column(k, "DNA"): v for k, v in plane_quality(p).items()} for p in taken])
    return pd.concat([fields[FIELD_KEY], rows], axis=1)


def test_drawn_fields_without_defects_are_not_flagged(drawn):
    fields, planes = drawn
    assert flags(_measures(fields, planes), fields, deviations=5.0).empty


@pytest.mark.parametrize("defect", DEFECTS)
def test_each_defect_is_found_and_named(drawn, defect):
    fields, planes = drawn
    planes = [DEFECTS[defect](p) if i in (4, 15) else p for i, p in enumerate(planes)]
    found = flags(_measures(fields, planes), fields)
    assert sorted({tuple(k) for k in found[FIELD_KEY].to_numpy()}) == sorted(
        {tuple(k) for k in fields.loc[[4, 15], FIELD_KEY].to_numpy()})
    for _, rows in found.groupby(FIELD_KEY):
        assert rows["reason"].str.contains(defect, regex=False).any(), rows["reason"].tolist()


def test_sound_real_plate_has_no_flag_and_its_spoilt_fields_have(data_folder):
    """BBBC013, 96 fields of 640 x 640 pixels: as published, and with two of them spoilt."""
    import tifffile

    names = sorted((data_folder / "bbbc013").glob("Channel2-*.tif"))[::2]
    planes = [tifffile.imread(n) for n in names]
    fields = plan(labels=2, compounds=12, plates=1, sites=2)
    rows = [plane_quality(p) for p in planes]
    table = pd.concat([fields[FIELD_KEY], pd.DataFrame(rows).add_suffix("_DNA")], axis=1)
    assert len(names) == len(fields) == 48 and flags(table, fields, deviations=5.0).empty
    blurred = cv2.GaussianBlur(planes[7], (0, 0), 6.0)
    table.loc[7, table.columns[3:]] = list(plane_quality(blurred).values())
    fibre = cv2.line(planes[30] // 8, (50, 500), (400, 300), 250, 24)
    table.loc[30, table.columns[3:]] = list(plane_quality(fibre).values())
    found = flags(table, fields, deviations=5.0)
    assert sorted({tuple(k) for k in found[FIELD_KEY].to_numpy()}) == sorted(
        {tuple(k) for k in fields.loc[[7, 30], FIELD_KEY].to_numpy()})
