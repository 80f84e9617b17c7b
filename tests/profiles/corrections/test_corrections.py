"""Batch corrections: what they remove, what they leave, what they look at, what they say."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.covariance import LedoitWolf
from sklearn.preprocessing import StandardScaler

from benchmark.base.errors import MorphobenchError
from benchmark.profiles.corrections.combat_harmony import ComBat, Harmony
from benchmark.profiles.corrections.make import make_correction
from benchmark.profiles.corrections.sphering import TVN, CovariancePower, Sphering, shrinkage_of
from benchmark.profiles.wells import feature_columns

NAMES = ["none", "sphering", "tvn", "combat", "harmony"]


def table(seed=0, batches=3, controls=12, treated=20, features=6, effect=1.0):
    """Correlated features; each batch has its own shift and gain."""
    rng = np.random.default_rng(seed)
    n = controls + treated
    mixing = rng.normal(size=(features, features))
    parts = []
    for b in range(batches):
        values = rng.normal(size=(n, features)) @ mixing
        values[controls:] += 2 * rng.normal(size=features)
        values = values * np.exp(0.4 * effect * rng.normal(size=features)) + 3 * effect * rng.normal(size=features)
        metadata = pd.DataFrame({
            "Metadata_Batch": f"w{b}", "Metadata_Plate": [f"w{b}-{i % 2}" for i in range(n)],
            "Metadata_Well": [f"A{i:03d}" for i in range(n)],
            "Metadata_Control": ["negative"] * controls + [""] * treated,
            "Metadata_Label": ["" if i < controls else f"label-{i % 4}" for i in range(n)]})
        parts.append(pd.concat([metadata, pd.DataFrame(values, columns=[f"f{i}" for i in range(features)])], axis=1))
    return pd.concat(parts, ignore_index=True)


def values_of(frame):
    return frame[feature_columns(frame)].to_numpy()


def controls_of(frame):
    return frame[frame["Metadata_Control"] == "negative"]


def rows_for(correction, frame, train):
    control = frame["Metadata_Control"] == "negative"
    return frame[control if correction.fit_on == "controls" else control | train]


# --- all of them


@pytest.mark.parametrize("name", NAMES)
def test_every_correction_gives_whole_numbers_facts_and_the_same_rows(name):
    frame = table().sample(frac=1, random_state=1)
    if name != "none":
        frame.iloc[3, frame.columns.get_loc("f1")] = np.nan
        frame.iloc[5, frame.columns.get_loc("f2")] = np.inf
    found = clone(make_correction(name, 1)).fit(frame)
    out = found.transform(frame)
    assert np.isfinite(values_of(out)).all() and values_of(out).dtype == np.float64
    metadata = [c for c in frame if c.startswith("Metadata_")]
    pd.testing.assert_frame_equal(out[metadata], frame[metadata])
    facts = json.loads(json.dumps(found.facts_))
    assert facts["correction"] == name and facts["note"] and facts["features"] == 6


def test_none_changes_nothing():
    frame = table()
    pd.testing.assert_frame_equal(make_correction("none").fit(frame.iloc[:0]).transform(frame), frame)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_order_of_features_and_labels_do_not_matter(name, seed):
    frame = table(seed)
    shuffled = frame[[*frame.columns[:5], *np.random.default_rng(seed).permutation(feature_columns(frame))]]
    shuffled = shuffled.assign(Metadata_Label="other")
    one = make_correction(name, 1).fit(frame).transform(frame)
    two = make_correction(name, 1).fit(shuffled).transform(shuffled)
    if name == "harmony":  # its axes may turn round; distances stay
        one, two = (np.linalg.norm(v[:, None] - v[None], axis=2) for v in (values_of(one), values_of(two)))
        assert_allclose(one, two, atol=1e-2 * one.max())
    else:
        assert_allclose(one[feature_columns(frame)], two[feature_columns(frame)], rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", ["sphering", "tvn", "combat"])
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 10_000), factor=st.floats(-50, 50))
def test_rows_outside_fit_change_nothing_of_what_was_learnt(name, seed, factor):
    frame = table(seed)
    rng = np.random.default_rng(seed)
    train = pd.Series(rng.random(len(frame)) < 0.6, index=frame.index) & (frame["Metadata_Control"] == "")
    changed = frame.copy()
    outside = ~train & (frame["Metadata_Control"] == "")
    changed.loc[outside, feature_columns(frame)] *= factor
    one, two = make_correction(name), make_correction(name)
    one.fit(rows_for(one, frame, train))
    two.fit(rows_for(two, changed, train))
    kept = frame[~outside]
    assert (values_of(one.transform(kept)) == values_of(two.transform(kept))).all()
    # and each row goes its own way: alone as among others
    alone = pd.concat([one.transform(frame.iloc[[i]]) for i in range(0, len(frame), 31)])
    assert_allclose(values_of(alone), values_of(one.transform(frame).iloc[::31]), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["sphering", "tvn"])
def test_treated_wells_given_to_a_correction_on_controls_are_not_looked_at(name):
    frame = table()
    one = make_correction(name).fit(frame).transform(frame)
    two = make_correction(name).fit(controls_of(frame)).transform(frame)
    pd.testing.assert_frame_equal(one, two)


@pytest.mark.parametrize(("name", "rows"), [("sphering", 1), ("tvn", 0), ("harmony", 2)])
def test_too_few_rows_are_said(name, rows):
    with pytest.raises(MorphobenchError, match="Set correction to none"):
        make_correction(name).fit(controls_of(table()).iloc[:rows])


def test_an_unknown_name_and_lost_features_are_said():
    with pytest.raises(MorphobenchError, match="There are none, sphering"):
        make_correction("magic")
    frame = table()
    with pytest.raises(MorphobenchError, match="lacks 1 of 6 features, f3"):
        Sphering().fit(frame).transform(frame.drop(columns="f3"))


# --- sphering


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), controls=st.sampled_from([3, 8, 40]), features=st.sampled_from([2, 6, 25]))
def test_sphering_is_the_inverse_root_of_the_shrunk_correlations(seed, controls, features):
    frame = table(seed, batches=1, controls=controls, features=features)
    found = Sphering().fit(frame)
    standard = StandardScaler().fit(values_of(controls_of(frame)))
    covariance = LedoitWolf(assume_centered=True).fit(standard.transform(values_of(controls_of(frame)))).covariance_
    eigenvalues, axes = np.linalg.eigh(covariance)
    expected = standard.transform(values_of(frame)) @ axes @ np.diag(eigenvalues ** -0.5) @ axes.T
    assert_allclose(values_of(found.transform(frame)), expected, rtol=1e-6, atol=1e-6)


def test_with_many_controls_they_become_spherical():
    frame = table(batches=1, controls=3000, treated=5)
    found = Sphering().fit(frame)
    white = values_of(controls_of(found.transform(frame)))
    assert found.facts_["shrinkage"] < 0.01 and found.facts_["rank"] == 6
    assert_allclose(np.cov(white, rowvar=False), np.eye(6), atol=0.1)
    assert_allclose(white.mean(axis=0), 0, atol=1e-9)


def test_a_rank_deficient_fit_is_regularised_and_says_so():
    frame = table(batches=1, controls=8, features=40)
    found = Sphering().fit(frame)
    white = values_of(found.transform(frame))
    facts = found.facts_
    assert facts["controls"] == 8 and facts["features"] == 40 and facts["rank"] == 7
    assert 0 < facts["shrinkage"] <= 1 and facts["regularisation"] == "Ledoit-Wolf"
    assert "8 controls, 40 features: rank 7, short of full rank, regularised by Ledoit-Wolf" in facts["note"]
    # along each axis the controls keep (their share) / (their share + what was added)
    a = facts["shrinkage"]
    plain = found.whitening_.eigenvalues
    kept = np.linalg.svd(white[:8], compute_uv=False)[:7] ** 2 / 8
    assert_allclose(np.sort(kept), np.sort(plain / ((1 - a) * plain + a)), rtol=1e-9)
    assert np.abs(white).max() < 1e3


def test_two_controls_have_their_own_shrinkage():
    # the covariance of two centred rows is met by each alone, so Ledoit and Wolf find nothing to shrink
    rows = np.array([[1.0, -1.0, 1.0], [-1.0, 1.0, -1.0]])
    name, amount = shrinkage_of(rows)
    assert name == "oracle-approximating" and 0.1 < amount <= 1
    frame = table(batches=1, controls=2)
    assert np.abs(values_of(Sphering().fit(frame).transform(frame))).max() < 1e3


def test_features_without_spread_over_controls_are_left_out_and_counted():
    frame = table()
    frame.loc[frame["Metadata_Control"] == "negative", "f4"] = 0.1
    found = Sphering().fit(frame)
    assert feature_columns(found.transform(frame)) == ["f0", "f1", "f2", "f3", "f5"]
    assert found.facts_["left_out"] == 1 and "1 features without spread" in found.facts_["note"]
    flat = frame.assign(**dict.fromkeys(feature_columns(frame), 1.0))
    with pytest.raises(MorphobenchError, match="no feature varies over the 36 rows"):
        Sphering().fit(flat)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.sampled_from([3, 10, 30]), exponent=st.sampled_from([0.5, -0.5, 1.0]))
def test_a_power_of_a_covariance_is_that_of_the_whole_matrix(seed, n, exponent):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, 12))
    rows -= rows.mean(axis=0)
    eigenvalues, axes = np.linalg.eigh(0.7 * np.cov(rows, rowvar=False) + 0.3 * np.eye(12))
    whole = axes @ np.diag(eigenvalues ** exponent) @ axes.T
    other = rng.normal(size=(5, 12))
    assert_allclose(CovariancePower.of(rows, exponent, 0.7, 0.3, ddof=1).apply(other), other @ whole, atol=1e-8)


# --- TVN


def test_tvn_on_one_batch_is_sphering():
    frame = table(batches=1)
    assert_allclose(values_of(TVN().fit(frame).transform(frame)), values_of(Sphering().fit(frame).transform(frame)),
                    atol=1e-9)


def test_tvn_aligns_each_batchs_controls_as_coral_does():
    frame = table(controls=30)
    white = Sphering().fit(frame).transform(frame)
    out = TVN().fit(frame).transform(frame)

    def power(m, e):
        w, v = np.linalg.eigh(m)
        return v @ np.diag(w ** e) @ v.T

    one = np.eye(6)
    pooled = np.cov(values_of(controls_of(white)), rowvar=False)
    for batch in ("w0", "w1", "w2"):
        own = white[white["Metadata_Batch"] == batch]
        reference = values_of(controls_of(own))
        expected = (values_of(own) - reference.mean(axis=0)) @ power(np.cov(reference, rowvar=False) + one, -0.5)
        expected = expected @ power(pooled + one, 0.5)
        assert_allclose(values_of(out[out["Metadata_Batch"] == batch]), expected, atol=1e-8)


def test_tvn_brings_batches_together():
    frame = table(controls=40, effect=2.0)
    spread = []
    for name in ("sphering", "tvn"):
        out = controls_of(make_correction(name).fit(frame).transform(frame))
        spread.append(np.linalg.norm(out.groupby("Metadata_Batch")[feature_columns(out)].mean().to_numpy()))
    assert spread[1] < 1e-6 < 0.5 < spread[0]


def test_tvn_leaves_a_batch_with_one_control_whitened_only_and_names_it():
    frame = table()
    controls = controls_of(frame)
    frame = frame.drop(index=controls[controls["Metadata_Batch"] == "w1"].index[1:])
    found = TVN().fit(frame)
    out = found.transform(frame)
    white = Sphering().fit(frame).transform(frame)
    own = frame["Metadata_Batch"] == "w1"
    assert_allclose(values_of(out[own]), values_of(white[own]))
    assert found.facts_["batches"] == ["w0", "w2"] and found.facts_["batches_unseen"] == ["w1"]
    assert "fewer than two controls: w1" in found.facts_["note"]
    found.transform(frame.assign(Metadata_Batch="new"))
    assert found.facts_["batches_unseen"] == ["new", "w1"]


# --- ComBat


#: Three batches of 5, 4 and 6 rows, six features, drawn at random; and what neuroCombat 0.2.12 (Fortin et al. 2018)
#: makes of them, its iteration carried to 1e-13.
BATCH = np.repeat(["a", "b", "c"], [5, 4, 6])
GIVEN = np.array([
    [-0.880, 1.370, -0.510, -4.410, -1.620, -0.200],
    [-0.630, 2.450, -0.010, -0.760, -2.480, -1.540],
    [-1.040, 7.220, -0.290, -10.860, -2.840, -1.470],
    [-0.710, 3.040, -0.740, -4.010, -2.820, -0.900],
    [0.330, 5.680, -1.210, -6.440, -3.740, -0.480],
    [-2.730, 1.260, -0.550, -4.600, -3.200, -1.770],
    [-2.430, -2.880, -0.360, -8.220, 0.140, -0.090],
    [-3.800, 2.010, -1.350, -3.080, -1.560, -4.160],
    [-1.140, 0.420, 0.200, -8.550, -0.510, -2.820],
    [-0.090, -2.820, 0.800, 10.260, 3.150, -1.720],
    [1.090, 0.540, -0.230, 8.350, 2.070, -2.760],
    [0.430, -1.180, 0.380, 7.460, 0.570, -2.120],
    [0.340, -2.870, 0.520, 4.660, -0.480, -3.650],
    [1.210, -1.860, -0.410, 5.150, 1.140, -3.420],
    [-1.030, 0.090, -0.520, 7.590, 0.710, -2.810],
])
NEUROCOMBAT = np.array([
    [-1.05411024, -1.16638269, -0.25418347, -0.12752214, 0.34484456, -1.06027057],
    [-0.76799441, -0.20249145, 0.27605137, 3.01626553, -0.63816675, -2.63894536],
    [-1.23722438, 4.05469482, -0.02088014, -5.68298253, -1.04965985, -2.55647728],
    [-0.85955147, 0.32407876, -0.49809149, 0.21700254, -1.02679912, -1.88495143],
    [0.33069040, 2.68025733, -0.99651224, -1.87598486, -2.07839262, -1.39014292],
    [-1.12755765, 1.90073829, -0.24829326, -0.03938783, -2.03949977, -1.51559680],
    [-0.91263530, -1.19620875, -0.10781166, -2.77825677, 0.41095355, -0.36119495],
    [-1.89411405, 2.46177942, -0.83979474, 1.11063449, -0.83628317, -3.15787085],
    [0.01153083, 1.27237222, 0.30623938, -3.02793267, -0.06593108, -2.23709795],
    [-1.12760429, -0.95629321, 0.42247041, 3.05731811, 1.21697508, -0.97084471],
    [0.05351425, 2.65818585, -0.60740983, 1.00344726, 0.15905443, -2.09411356],
    [-0.60711137, 0.80791680, 0.00251925, 0.04640797, -1.31027980, -1.40287119],
    [-0.69719669, -1.01008010, 0.14250297, -2.96450218, -2.33881376, -3.05537247],
    [0.17362800, 0.07641509, -0.78738890, -2.43759290, -0.75193279, -2.80695725],
    [-2.06849532, 2.17410383, -0.89737611, 0.18620022, -1.17314193, -2.14811687],
])


def test_combat_gives_neurocombats_numbers():
    frame = pd.DataFrame(GIVEN, columns=list("abcdef")).assign(Metadata_Batch=BATCH)
    assert_allclose(ComBat().fit(frame).transform(frame)[list("abcdef")], NEUROCOMBAT, atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_combat_takes_shift_and_gain_of_a_batch_away(seed):
    rng = np.random.default_rng(seed)
    clean = rng.normal(size=(240, 30)) * np.exp(rng.normal(size=30))
    batch = np.arange(240) % 3
    # as the model has it: both are in units of the feature's own deviation
    dirty = clean * np.exp(0.3 * rng.normal(size=(3, 30)))[batch]
    dirty += rng.normal(size=(3, 30))[batch] * clean.std(axis=0)
    names = [f"f{i}" for i in range(30)]
    frame = pd.DataFrame(dirty, columns=names).assign(Metadata_Batch=batch.astype(str))
    out = ComBat().fit(frame).transform(frame)

    def left(t):  # differences between batches: of means in deviations, and of log deviations; mean over features
        by_batch = t.groupby("Metadata_Batch")[names]
        means, deviations = by_batch.mean() / t[names].std(), np.log(by_batch.std())
        return (means.max() - means.min()).mean(), (deviations.max() - deviations.min()).mean()

    (shift, gain), (shift_before, gain_before) = left(out), left(frame)
    assert shift < 0.05 < 1 < shift_before and gain < 0.25 * gain_before
    # each feature is the clean one again, but for the common location and scale
    for i, name in enumerate(names):
        assert np.corrcoef(out[name], clean[:, i])[0, 1] > 0.93


def test_combat_of_one_batch_changes_nothing():
    frame = table(batches=1)
    found = ComBat().fit(frame)
    pd.testing.assert_frame_equal(found.transform(frame), frame)
    assert found.facts_["corrected"] == 0 and "nothing corrected: 1 batch" in found.facts_["note"]


def test_combat_leaves_an_unseen_batch_and_names_it():
    frame = table()
    new = frame["Metadata_Batch"] == "w2"
    found = ComBat().fit(frame[~new])
    out = found.transform(frame)
    pd.testing.assert_frame_equal(out[new], frame[new])
    assert not np.allclose(values_of(out[~new]), values_of(frame[~new]))
    assert found.facts_["batches_unseen"] == ["w2"] and "not fitted: w2" in found.facts_["note"]


def test_combat_shifts_a_batch_of_one_row():
    frame = table()
    frame = frame.drop(index=frame[frame["Metadata_Batch"] == "w2"].index[1:])
    found = ComBat().fit(frame)
    assert (found.effects_["w2"].variance == 1).all() and np.isfinite(values_of(found.transform(frame))).all()
    assert "one row: w2" in found.facts_["note"]


def test_combat_leaves_a_feature_without_spread_in_a_batch():
    frame = table()
    frame.loc[frame["Metadata_Batch"] == "w1", "f2"] = 0.1
    found = ComBat().fit(frame)
    out = found.transform(frame)
    assert (out["f2"] == frame["f2"]).all() and not (out["f1"] == frame["f1"]).any()
    assert found.facts_["corrected"] == 5


@pytest.mark.parametrize("features", [1, 2])
def test_combat_of_few_features(features):
    frame = table(features=features)
    out = ComBat().fit(frame).transform(frame)
    spread = out.groupby("Metadata_Batch")[feature_columns(out)].mean().std() / out[feature_columns(out)].std()
    assert (spread < 0.2).all()


# --- Harmony


def test_harmony_is_the_same_for_the_same_seed_and_any_order_of_rows():
    frame = table(batches=3, controls=30, treated=30)
    one = Harmony(3).fit(frame).transform(frame)
    mixed = frame.sample(frac=1, random_state=0)
    two = Harmony(3).fit(mixed).transform(mixed)
    assert (values_of(one) == values_of(two.loc[one.index])).all()
    assert feature_columns(one) == [f"Harmony_{i}" for i in range(1, 7)]
    assert not np.allclose(values_of(Harmony(4).fit(frame).transform(frame)), values_of(one))


def test_harmony_brings_batches_together_and_keeps_kinds_apart():
    rng = np.random.default_rng(0)
    kind, batch = np.arange(300) % 3, np.arange(300) // 3 % 2
    values = 8 * np.eye(3, 10)[kind] + rng.normal(size=(300, 10)) + np.outer(batch, [0] * 5 + [1] * 5)
    frame = pd.DataFrame(values, columns=[f"f{i}" for i in range(10)]).assign(
        Metadata_Batch=batch.astype(str), Metadata_Plate="P", Metadata_Well=[f"A{i:03d}" for i in range(300)])
    found = values_of(Harmony().fit(frame).transform(frame))
    plain = StandardScaler().fit_transform(values)

    def apart(v, what):
        return np.linalg.norm(v[what == 0].mean(axis=0) - v[what == 1].mean(axis=0))

    assert apart(found, batch) < 0.6 * apart(plain, batch)
    assert apart(found, kind) > 0.9 * apart(plain, kind)


def test_harmony_of_one_batch_is_the_components():
    frame = table(batches=1)
    out = Harmony().fit(frame)
    v, w = values_of(out.transform(frame)), StandardScaler().fit_transform(values_of(frame))
    assert_allclose(v @ v.T, w @ w.T, atol=1e-8)  # a rotation
    assert "nothing corrected" in out.facts_["note"]


def test_harmony_looks_rows_up_and_refuses_others():
    frame = table()
    found = Harmony().fit(frame)
    pd.testing.assert_frame_equal(found.transform(frame.iloc[[40, 3]]), found.transform(frame).iloc[[40, 3]])
    with pytest.raises(MorphobenchError, match="well w0-0 Z9: was not among the rows"):
        found.transform(frame.assign(Metadata_Well="Z9"))
    with pytest.raises(MorphobenchError, match="w1-0 A000: has other features"):
        found.transform(frame.assign(f1=frame["f1"].where(frame.index != 32, 99.0)))
    with pytest.raises(MorphobenchError, match="is in the table twice"):
        Harmony().fit(pd.concat([frame, frame]))


def test_harmony_takes_fields_by_their_own_key():
    frame = table()
    fields = pd.concat([frame.assign(Metadata_Site="1"), frame.assign(Metadata_Site="2", f0=frame["f0"] + 1)])
    fields = fields.reset_index(drop=True)
    assert len(Harmony().fit(fields).transform(fields)) == 2 * len(frame)
