"""What stands in a user's cells is shown on the page and in exported tables, and never run there."""

from __future__ import annotations

import csv

import pandas as pd
import pytest
from fake_runs import run, study, wells

from benchmark.evaluation.comparison import compare
from benchmark.report.page import render
from benchmark.report.spreadsheet import write_csv

NAMES = ["=cmd|' /C calc'!A0", "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\tx", "<script>alert(1)</script>",
         '"><img src=x onerror=alert(1)>', "taxol, 5 µM", "{{ 7 * 7 }}", "\x1b[31mred"]


@pytest.mark.parametrize("name", NAMES)
def test_a_cell_of_an_exported_table_is_no_formula(tmp_path, name):
    write_csv(tmp_path / "t.csv", pd.DataFrame({"compound": [name, "sound"], name: [-1.5, 2.0]}))
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as handle:
        header, first, second = csv.reader(handle)
    for cell in (header[1], first[0]):
        assert cell in (name, f"'{name}") and cell[0] not in "=+-@\t\r"
    assert (first[1], second) == ("-1.5", ["sound", "2.0"])  # numbers stay numbers, names stay names


def test_names_on_the_page_are_text(tmp_path):
    layout = wells()
    compounds = sorted(layout["Metadata_Compound"].unique())
    layout = layout.replace({"Metadata_Compound": dict(zip(compounds, NAMES, strict=False)),
                             "Metadata_Label": {"DNA damage": NAMES[5], "Eg5 inhibitors": NAMES[8]}})
    runs = [run(layout, "cellprofiler", [3, 9], NAMES[0], role="classical"),
            run(layout, "cnn", [1], NAMES[6], role="finetuned")]
    page = render(study(labels=dict.fromkeys(NAMES, 9)), runs, compare(runs), {}, tmp_path).read_text(encoding="utf-8")
    assert "<script" not in page and "<img src=x" not in page
    assert "{{ 7 * 7 }}" in page and "&lt;script&gt;alert(1)" in page
