"""Dose response on the page: numbers written honestly, a figure that shows what the table says."""

import re
from functools import cache

import numpy as np
import pandas as pd
import pytest
from fake_runs import TWO_CELL_LINES, control_plate, dose_run, dose_runs, study, study_runs
from matplotlib.figure import Figure

from benchmark.evaluation.comparison import compare
from benchmark.report.dose import concentration, dose_figure, dose_rows, ec50_text, factor_text, slope_text
from benchmark.report.page import render
from benchmark.report.text import accuracy_text
from benchmark.report.words import answer


@cache
def comparison():
    """Five methods on a plate like BBBC013; made once, never changed."""
    return compare(dose_runs(), "well")


def fit(**values):
    base = {"status": "fitted", "ec50": 0.0123, "ec50_low": 0.0091, "ec50_high": 0.017, "lowest": 0.00098,
            "highest": 0.25, "slope": 1.52, "slope_low": 1.1, "slope_high": 2.14}  # fmt: skip
    return pd.Series(base | values)


@pytest.mark.parametrize(("micromolar", "text"), [
    (12.345, "12.3 µM"), (0.1, "0.1 µM"), (0.0987, "98.7 nM"), (1234.5, "1230 µM"), (0.000098, "98 pM"),
    (2e-9, "0.002 pM"),
])  # fmt: skip
def test_concentrations_are_written_in_the_unit_that_reads_best(micromolar, text):
    assert concentration(micromolar).replace("\u00a0", " ") == text


@pytest.mark.parametrize(("row", "text"), [
    (fit(), "12.3 nM [9.1 to 17]"),
    (fit(ec50_low=0.0), "12.3 nM [< 0.98 to 17]"),
    (fit(ec50_high=np.inf), "12.3 nM [9.1 to > 250]"),
    (fit(ec50_low=0.0, ec50_high=np.inf), "not determined"),
    (fit(status="below"), "below the doses (< 0.98 nM)"),
    (fit(status="above"), "above the doses (> 0.25 µM)"),
    (fit(status="flat"), "none: no rise with dose"),
    (fit(status="too few"), "none: too few doses or wells"),
])  # fmt: skip
def test_an_ec50_is_a_number_only_where_there_is_one(row, text):
    assert ec50_text(row).replace("\u00a0", " ") == text


def test_slopes_and_factors():
    assert slope_text(fit()) == "1.5 [1.1 to 2.1]" and slope_text(fit(status="flat")) == "–"
    assert slope_text(fit(slope_high=np.inf)) == "≥\u00a01.1"
    assert [factor_text(v) for v in (0.876, -0.4, -np.inf, np.nan)] == ["0.88", "−0.40", "<\u00a0−10", "–"]


def test_rows_come_curve_by_curve_with_controls_last():
    rows = dose_rows(comparison())
    assert [r["curve"] for r in rows] == ["LY294002"] * 5 + ["Wortmannin"] * 5
    assert [r["first"] for r in rows] == ([True] + [False] * 4) * 2
    assert [r["method"] for r in rows[:5]] == list(comparison().methods) and rows[4]["control"]
    assert rows[4]["z_prime"].endswith("(inverted)") and "inverted" not in rows[1]["z_prime"]
    assert re.fullmatch(r"0\.0\d → 0\.9\d", rows[1]["means"])
    assert rows[0]["ec50"] == "none: no rise with dose" and "nM [" in rows[6]["ec50"]
    assert (rows[0]["wells"], rows[0]["positive"], rows[0]["negative"], rows[0]["doses"]) == (48, 4, 8, 9)


def drawn(figure: Figure, panel: int, colour: str):
    """Marks and curves of a colour in a panel."""
    lines = [line for line in figure.axes[panel].lines if line.get_color() == colour and len(line.get_xdata())]
    return [x for x in lines if x.get_linestyle() == "None"], [x for x in lines if x.get_linestyle() != "None"]


def test_figure_has_a_panel_a_curve_and_every_well_and_fit():
    found = comparison()
    figure = dose_figure(found)
    assert [a.get_title(loc="left") or a.get_title() for a in figure.axes] == ["LY294002", "Wortmannin"]
    assert [a.get_xlabel() for a in figure.axes] == ["concentration, µM", "concentration, nM"]
    table = found.doses.table.set_index(["Metadata_Compound", "method"])
    marks, curves = drawn(figure, 1, "#0173b2")  # CellProfiler
    wells = found.doses.wells
    mine = wells[(wells["method"] == "cellprofiler") & (wells["Metadata_Compound"] == "Wortmannin")]
    assert sorted(marks[0].get_ydata()) == pytest.approx(sorted(mine["score"]))
    row = table.loc[("Wortmannin", "cellprofiler")]
    assert marks[1].get_xdata() == pytest.approx(np.log10(row["ec50"]))  # the tick at the foot
    curve, bar = curves
    half = np.interp((row["bottom"] + row["top"]) / 2, curve.get_ydata(), curve.get_xdata())
    assert half == pytest.approx(np.log10(row["ec50"]), abs=0.01)
    assert bar.get_xdata() == pytest.approx(np.log10([row["ec50_low"], row["ec50_high"]]))
    # no curve where there is no response
    marks, curves = drawn(figure, 1, "#cc78bc")
    assert len(marks) == 1 and not curves
    legend = [t.get_text() for t in figure.legends[0].get_texts()]
    assert legend == [found.titles[m] for m in found.methods]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dose")
    facts = study(n_response=72, n_wells=24, data_lock="10c" * 8, labels={"cytoplasmic": 16, "nuclear": 8}, n_folds=2)
    html = render(facts, dose_runs(), comparison(), {}, folder).read_text(encoding="utf-8")
    return folder, html, " ".join(re.sub(r"<[^>]+>", " ", html[html.index("<body>"):]).split())


def test_page_shows_every_number_of_the_table(page):
    folder, html, text = page
    assert (folder / "figures" / "dose.svg").exists()
    table = html[html.index('<table id="doses">'):]
    cells = re.findall(r"<td[^>]*>(.*?)</td>", table[: table.index("</table>")], re.S)
    for row in dose_rows(comparison()):
        for key in ("means", "z_prime", "v_factor", "ec50", "slope", "spearman"):
            # Autoescaping writes < as &lt; the dash and the no-break space stay.
            assert row[key].replace("<", "&lt;").replace(">", "&gt;") in cells, (row["method"], key)
    for part in ("“nuclear”", "Probabilities saturate", "one plate", "trained on no well of that compound",
                 "Ravkin", "Zhang", "72 wells of dose series", "data lock 10c10c", "24 of 24 wells", "a thin basis",
                 "fewer than 5 compounds", "well by well", "not clearly above chance",
                 "13&nbsp;% smaller"):  # fmt: skip
        assert part in text, part
    assert "treatments right" not in text


def test_a_page_without_doses_has_no_such_section(tmp_path):
    runs = study_runs()[:2]
    html = render(study(), runs, compare(runs), {}, tmp_path).read_text(encoding="utf-8")
    assert "Dose response" not in html and "Ravkin" not in html and "data lock" not in html


def test_cell_lines_are_held_out_and_named(tmp_path):
    plate = control_plate(TWO_CELL_LINES, negatives=4)
    runs = dose_runs(plate)[1:3]
    found = compare(runs, "well")
    assert [r["curve"] for r in dose_rows(found)] == ["TNFa, A549"] * 2 + ["TNFa, MCF7"] * 2
    facts = study(scheme="leave-one-cell-line-out", held_out="cell line", n_response=32, n_fields=None)
    html = render(facts, runs, found, {}, tmp_path).read_text(encoding="utf-8")
    text = " ".join(re.sub(r"<[^>]+>", " ", html[html.index("<body>"):]).split())
    assert "each fold holds out a whole cell line" in text and "cell line held out" in text
    assert "compounds held out" not in text and "trained on no well of that cell line" in text
    # one compound: nothing to resample, and no images to speak of
    assert found.accuracy["cluster_low"].isna().all() and "nan" not in text.lower()
    assert "Profiles, labels and folds" in text and "<span>fields" not in html


def test_answer_and_terminal_speak_of_wells():
    text = answer(comparison()).text
    assert "24 of 24 wells" in text and "of 2 held-out groups" in text and answer(comparison()).warnings == ()
    lines = accuracy_text(comparison()).splitlines()
    heading = next(line for line in lines if line.startswith("dose response"))
    assert heading.split()[3:] == ["Z′", "V", "EC50", "[95", "%]", "Spearman"]
    assert sum("no rise with dose" in line for line in lines) == 4
    assert not any("nan" in line for line in lines)


def test_several_seeds_have_rows_of_their_own_and_one_is_drawn():
    found = compare([dose_run("cellprofiler", seeds=(1, 2), role="classical"), dose_run("other", seeds=(1, 2))], "well")
    assert [r["seed"] for r in dose_rows(found)] == [1, 2] * 4
    marks, _ = drawn(dose_figure(found), 0, "#0173b2")
    assert len(marks[0].get_xdata()) == 48


def test_hostile_names_do_no_harm(tmp_path):
    evil = "<script>alert('x')</script>&\"$a_b$"
    curves = {(f"one{evil}", evil): [0.1, 1.0, 10.0], (f"two{evil}", evil): [0.1, 1.0, 10.0]}
    runs = [dose_run(f"m{evil}", evil, plate=control_plate(curves))]
    html = render(study(), runs, compare(runs, "well"), {}, tmp_path).read_text(encoding="utf-8")
    assert "<script" not in html and "<script" not in (tmp_path / "figures" / "dose.svg").read_text(encoding="utf-8")
