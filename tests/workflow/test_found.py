"""Images in which nothing is found: said before CellProfiler runs, refused before a method is scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from drawn_plate import COUNT, measured_as
from test_settle import INTENSITY, PROFILE, TILES, drawn, lost, opened, plate  # noqa: F401  (a fixture)
from typer.testing import CliRunner

from benchmark.base.errors import MorphobenchError
from benchmark.base.files import PROJECT
from benchmark.base.tables import FIELD_KEY
from benchmark.cellprofiler.pipeline import parse
from benchmark.cells.table import SingleCells
from benchmark.cli import app
from benchmark.methods.context import Pipeline
from benchmark.profiles.aggregate import make_well_profiles
from benchmark.profiles.settings import ProfileSettings
from benchmark.quality.brightness import Brightest
from benchmark.quality.fields import Sound
from benchmark.workflow.found import _named, refuse_without_cells
from benchmark.workflow.measured import measured_losses
from benchmark.workflow.session import Session
from benchmark.workflow.tables import _refuse_constant
from benchmark.workflow.walk import prepare


@pytest.mark.parametrize("method", [COUNT, PROFILE])
def test_no_cell_in_any_field_is_refused_before_any_method(plate, monkeypatch, method):  # noqa: F811
    monkeypatch.setenv("FAKE_FAULT", "empty")
    drawn(plate, method)
    for command in ("report", "baseline"):
        done = CliRunner().invoke(app, [command, "mine.yaml", "--jobs", "1"])
        assert done.exit_code == 2, done.output
        assert "no cell was found in any of 32 fields" in done.stderr and "p.cppipe" in done.stderr
        assert not (plate / "runs" / "mine" / method["name"]).exists()


def test_a_dim_channel_is_noted_before_and_is_the_remedy_after(plate, monkeypatch):  # noqa: F811
    (note,) = prepare(drawn(plate))[0].assay.left_out
    assert note.what.startswith("the brightest pixel of DNA is 2 % of what 16 bits hold") and note.where == "32 fields"
    assert "multiply by 16 with ImageMath modules in" in note.remedy
    said = CliRunner().invoke(app, ["baseline", "mine.yaml", "--jobs", "1"]).stderr
    assert said.index("the brightest pixel of DNA") < said.index("fields and folds")
    maths = "\nImageMath:[module_num:9|svn_version:'Unknown'|enabled:True]\n    Multiply the result by:1.0\n"
    text = (plate / "p.cppipe").read_text()
    monkeypatch.setenv("FAKE_FAULT", "empty")
    (plate / "p.cppipe").write_text(text + maths)
    with pytest.raises(MorphobenchError, match=r"the brightest pixel.*\{ImageMath: \{Multiply the result by: 16\}\}"):
        refuse_without_cells(*empty_study(plate))
    (plate / "p.cppipe").write_text(text + maths.replace("1.0", "16"))  # already done
    with pytest.raises(MorphobenchError, match="Lower and upper bounds on threshold"):
        refuse_without_cells(*empty_study(plate))


def empty_study(folder: Path) -> tuple[Session, Sound, dict[Pipeline, Any]]:
    """A study in whose fields no cell was found."""
    study = opened(drawn(folder))
    keys = study.assay.fields[FIELD_KEY]
    return study.session, study.fields.whole, {"cellprofiler": measured_as(keys.assign(cells=0))}


def test_networks_that_need_no_cells_run_without_any(plate, monkeypatch):  # noqa: F811
    monkeypatch.setenv("FAKE_FAULT", "empty")
    context, _ = prepare(drawn(plate, TILES, COUNT), only=("cnn",))
    assert len(context.assay.fields) == 32
    context, _ = prepare(drawn(plate, INTENSITY))
    assert len(context.assay.fields) == 32


def test_only_dim_channels_are_to_be_multiplied():
    """The others would be clipped at the end of their range."""
    text = (PROJECT / "pipelines" / "analysis.cppipe").read_text("utf-8")
    maths = [m for m in parse(text) if m.name == "ImageMath"]
    assert _named(maths, ["Tubulin"]) == ["ImageMath[2]"]
    assert _named(maths, ["DNA", "Actin"]) == ["ImageMath[1]", "ImageMath[3]"]
    assert _named(maths, ["x"]) == ["ImageMath"]


@pytest.mark.parametrize(("value", "bits", "share", "factor"), [
    (4095, 16, 0.0625, 16), (700, 16, 0.0107, 16), (6000, 16, 0.0916, 8), (65535, 16, 1, 1), (20, 8, 0.0784, 8),
    (0, 16, 0, 16), (255, 8, 1, 1),
])
def test_a_channel_is_never_multiplied_beyond_its_range(value, bits, share, factor):
    one = Brightest("DNA", value, bits, 4)
    assert one.share == pytest.approx(share, abs=1e-3) and one.factor == factor
    assert value * factor < 2**bits


def test_what_measuring_loses_is_counted(plate):  # noqa: F811
    study = opened(drawn(plate))
    fields = study.fields.whole.assay.fields
    gone = lost(study, 0, 1)
    counts = fields.drop(index=gone.index)[["Metadata_Plate", "Metadata_Well", "Metadata_Site"]].assign(cells=60)
    counts.loc[counts["Metadata_Plate"] == "P1", "cells"] = 0
    losses = measured_losses(study.study, study.fields.whole.assay, {"cellprofiler": measured_as(counts, gone)})
    empty = int((counts["cells"] == 0).sum())
    assert [(x.things, x.lost, x.total, x.where) for x in losses] == [
        ("fields", 2, 32, "CellProfiler"), ("fields", empty, 30, "CellProfiler"),
        ("wells", empty // 4, 8, "CellProfiler"), ("fields", empty, empty, "plate P1")]
    assert [x.warns for x in losses] == [False, True, True, True]
    full = counts.assign(cells=3)
    assert measured_losses(study.study, study.fields.whole.assay, {"cellprofiler": measured_as(full, gone[:0])}) == []
    assert measured_losses(study.study, study.fields.whole.assay, {}) == []


def test_profiles_of_nothing_and_profiles_that_are_all_the_same_are_refused():
    keys = {"Metadata_Plate": ["P"] * 3, "Metadata_Well": ["A01", "A02", "A03"], "Metadata_Site": [1, 1, 1]}
    wells = pd.DataFrame(keys)
    for table, words in ((wells.iloc[:0].assign(x=np.zeros(0)), "not one cell"), (wells, "no features")):
        with pytest.raises(MorphobenchError, match=words):
            make_well_profiles(SingleCells.of_frame(table), wells, ProfileSettings(), wells.iloc[:0], 0)
    for values in ([1.0, 1.0, 1.0], [1.0, np.nan, 1.0], [np.nan] * 3, [np.inf, 1.0, np.inf]):
        with pytest.raises(MorphobenchError, match="method m: all 3 wells have the same profile: none of 1 features"):
            _refuse_constant(wells.assign(x=values), "well", "method m")
    with pytest.raises(MorphobenchError, match="none of 0 features"):
        _refuse_constant(wells, "well", "method m")
    _refuse_constant(wells.assign(x=[1.0, 1.0, 2.0], y=np.nan), "well", "method m")
