"""The simulated assay: the same from the same seed, made once, balanced, and graded in strength."""

import hashlib
import json
from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from benchmark.assays.fieldtable import field_table_faults
from benchmark.assays.simulated import demo
from benchmark.assays.simulated.demo import (
    MECHANISMS,
    DemoAssaySettings,
    demo_assay,
    demo_fields,
    demo_key,
    demo_treatments,
    draw_well,
    make_demo,
)
from benchmark.assays.simulated.demo_draw import CHANNELS, Effect, Optics, draw_field
from benchmark.base.errors import MorphobenchError
from benchmark.base.tables import BATCH, COMPOUND, CONCENTRATION, CONTROL, LABEL, PLATE, TREATMENT_KEY, WELL
from benchmark.images.reading import read_field
from benchmark.quality.check import image_faults

TINY = DemoAssaySettings(size=80, cells=4, mechanisms=2, compounds_per_mechanism=2, concentrations=1,
                         plates_per_batch=1, negative_wells=1, fields_per_well=2)


def _contents(folder):
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "tiny"
    return make_demo(TINY, folder)


def test_default_design():
    table = demo_fields(DemoAssaySettings())
    assert field_table_faults(table, CHANNELS) == []
    assert len(table) == 240 and table[PLATE].nunique() == 4 and table[BATCH].nunique() == 2
    treated = table[table[CONTROL] == ""]
    assert set(treated[LABEL]) == set(MECHANISMS) and (treated.groupby(LABEL)[COMPOUND].nunique() == 3).all()
    wells = treated.drop_duplicates([PLATE, WELL])
    assert (wells.groupby(TREATMENT_KEY).size() == 4).all() and len(wells) == 4 * 24
    assert (table[table[CONTROL] == "negative"].groupby(PLATE)[WELL].nunique() == 6).all()
    assert (wells.groupby(TREATMENT_KEY)["Metadata_Replicate"].nunique() == 4).all()


def test_place_on_the_plate_tells_nothing():
    """Each plate is laid out anew, so a well's position cannot stand for its treatment."""
    table = demo_fields(DemoAssaySettings(fields_per_well=1))
    content = table.pivot(index=WELL, columns=PLATE, values=COMPOUND)
    same = [(content[a] == content[b]).mean() for a in content for b in content if a < b]
    assert max(same) < 0.4
    # Neighbours in the design are not neighbours on the plate.
    first = table[table[PLATE] == table[PLATE][0]]
    assert list(first[WELL]) != sorted(first[WELL])


def test_images_are_sound(tiny):
    assert tiny.simulated and "imulated" in tiny.source and tiny.channels == CHANNELS
    assert image_faults(tiny) == []
    field = read_field(tiny, tiny.fields.iloc[3])
    assert field.shape == (3, 80, 80) and field.dtype == np.uint16


def test_same_seed_same_bytes_in_any_order(tiny, tmp_path):
    def backwards(function, tasks, label):
        assert label
        yield from map(function, list(tasks)[::-1])

    again = make_demo(TINY, tmp_path / "again", backwards)
    assert _contents(again.root) == _contents(tiny.root)
    assert again.fields.equals(tiny.fields)


def test_another_seed_gives_other_pixels(tiny, tmp_path):
    other = make_demo(TINY.model_copy(update={"seed": 2}), tmp_path / "other")
    mine, its = (set(_contents(a.root / "images").values()) for a in (tiny, other))
    assert not mine & its


def _refuse(function, tasks, label):
    raise AssertionError("nothing should be drawn")
    yield


def test_made_once(tiny):
    before = _contents(tiny.root)
    assert make_demo(TINY, tiny.root, _refuse).fields.equals(tiny.fields)
    assert demo_assay(TINY, tiny.root).fields.equals(tiny.fields)
    assert _contents(tiny.root) == before


def test_other_settings_are_other_images_and_replace_the_old(tmp_path):
    harder = TINY.model_copy(update={"difficulty": 2.0})
    assert demo_key(harder) != demo_key(TINY)
    folder = tmp_path / "demo"
    first = _contents(make_demo(TINY, folder).root / "images")
    with pytest.raises(MorphobenchError, match="from these settings"):
        demo_assay(harder, folder)
    second = _contents(make_demo(harder, folder).root / "images")
    assert not set(first.values()) & set(second.values())
    assert [p.name for p in tmp_path.iterdir()] == ["demo"]  # no leftovers


def test_a_lost_image_or_a_tampered_record_is_noticed(tmp_path):
    assay = make_demo(TINY, tmp_path / "demo")
    before = _contents(assay.root)
    (assay.root / assay.fields["Path_Actin"][4]).unlink()
    with pytest.raises(MorphobenchError, match="no demo assay"):
        demo_assay(TINY, assay.root)
    assert _contents(make_demo(TINY, assay.root).root) == before
    record = json.loads((assay.root / "made.json").read_text())
    (assay.root / "made.json").write_text(json.dumps(record | {"key": "0"}))
    with pytest.raises(MorphobenchError):
        demo_assay(TINY, assay.root)


def test_new_drawing_code_is_a_new_assay(monkeypatch):
    before = demo_key(TINY)
    monkeypatch.setattr(demo, "DRAWING", demo.DRAWING + 1)
    assert demo_key(TINY) != before


def test_interrupted_drawing_leaves_nothing(tmp_path):
    def stops(function, tasks, label):
        yield function(tasks[0])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_demo(TINY, tmp_path / "demo", stops)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(MorphobenchError, match="in the way"):
        make_demo(TINY, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "x"


def test_difficulty_weakens_every_effect():
    easy, usual, hard = (demo_treatments(DemoAssaySettings(difficulty=d)) for d in (0.5, 1.0, 2.0))
    for a, b, c in zip(easy, usual, hard, strict=True):
        assert a[3].penetrance > b[3].penetrance > c[3].penetrance
        for name in ("destabilise", "disrupt", "damage", "arrest"):
            assert getattr(a[3], name) >= getattr(b[3], name) >= getattr(c[3], name)


def test_higher_doses_act_more():
    low, high = demo_treatments(DemoAssaySettings())[0::2], demo_treatments(DemoAssaySettings())[1::2]
    for a, b in zip(low, high, strict=True):
        assert a[0] == b[0] and a[1] < b[1] and a[3].penetrance < b[3].penetrance


# A measurement for each mechanism that must follow its strength.
def _nuclear_area(field):
    seen = ndimage.gaussian_filter(field[0].astype(float), 1)
    labels, n = ndimage.label(seen > 300)
    return np.median(ndimage.sum_labels(np.ones_like(seen), labels, range(1, n + 1)))


def _bright_dna(field):
    return np.mean(field[0] > 1150)


def _actin_area(field):
    return np.mean(ndimage.gaussian_filter(field[2].astype(float), 1.5) > 240)


def _tubulin_contrast(field):
    seen = field[1].astype(float) - 170
    fine = ndimage.gaussian_filter(seen, 0.7) - ndimage.gaussian_filter(seen, 2.5)
    cells = ndimage.gaussian_filter(seen, 2) > 60
    return fine[cells].std() / seen[cells].mean()


@cache
def _drawn(effect, seed):
    """Fields without any effect serve every name."""
    return draw_field(256, 30, effect, Optics(), np.random.default_rng(seed))


@pytest.mark.parametrize(("name", "measure", "sign"), [
    ("damage", _nuclear_area, 1), ("arrest", _bright_dna, 1), ("disrupt", _actin_area, -1),
    ("destabilise", _tubulin_contrast, -1),
])
def test_strength_is_graded(name, measure, sign):
    means = []
    for strength in (0.0, 0.45, 0.9):
        effect = Effect(**{name: strength}, penetrance=0.9)
        fields = [_drawn(effect, seed) for seed in range(3)]
        means.append(sign * np.mean([measure(f) for f in fields]))
    assert means[0] < means[1] < means[2]


def test_compounds_of_a_mechanism_differ():
    effects = {}
    for name, _, label, effect in demo_treatments(DemoAssaySettings()):
        effects.setdefault(label, {})[name] = effect.penetrance
    assert all(len(set(v.values())) == 3 for v in effects.values())


def test_plates_differ_in_light_and_the_corner_is_dimmer():
    plates = {p: [] for p in demo_fields(DemoAssaySettings())[PLATE].unique()}
    optics = demo._optics(DemoAssaySettings())
    assert len({o.gain for o in optics}) == len(plates) == 4
    flat = Optics(falloff=(0.0, 0.0, 0.0))
    uneven = Optics(falloff=(0.4, 0.4, 0.4))
    corner = [draw_field(128, 2, Effect(), o, np.random.default_rng(0))[0, :8, :8].mean() for o in (flat, uneven)]
    assert corner[1] < 0.9 * corner[0]


def test_noise_and_field_without_cells():
    quiet, noisy = (draw_field(64, 2, Effect(density=1e-9), Optics(noise=n), np.random.default_rng(0))
                    for n in (1.0, 2.0))
    assert quiet.shape == (3, 64, 64) and quiet.dtype == np.uint16
    assert 1.5 < noisy[0].std() / quiet[0].std() < 3


def test_settings_are_checked():
    with pytest.raises(ValueError, match="384-well"):
        DemoAssaySettings(compounds_per_mechanism=8, concentrations=4, replicates=4)
    for bad in ({"difficulty": 0}, {"size": 8}, {"colour": "red"}, {"compounds_per_mechanism": 1}):
        with pytest.raises(ValueError):
            DemoAssaySettings(**bad)


def test_tasks_are_plain_values():
    """They travel to other processes."""
    tasks = demo._tasks(TINY, demo_fields(TINY), demo.Path("x"))
    assert len(tasks) == 10 and json.loads(json.dumps(tasks)) and callable(draw_well)
    assert len({t.seeds for t in tasks}) == 10
    assert {CONCENTRATION} <= set(demo_fields(TINY).columns)
