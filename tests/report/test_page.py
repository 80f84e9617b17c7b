"""The page: self-contained, escaped, and with the comparison's own numbers."""

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from fake_runs import run, study, study_runs, wells
from PIL import Image

from benchmark.base.account import Loss
from benchmark.base.errors import MorphobenchError
from benchmark.evaluation.comparison import compare
from benchmark.evaluation.ensembles import with_ensembles
from benchmark.report.page import PICTURE_BYTES, data_uri, duration, render

EVIL = "<script>alert('x')</script>&\"$a_b$"


def evil_data():
    return {"losses": [Loss("wells", 5, 10, EVIL, EVIL, remedy=EVIL)], "notes": [[EVIL] * 5],
            "used": [{"things": "wells", "n": 5, "words": EVIL}],
            "features": [{"title": EVIL, "ranges": {"used": [3, 3], "measured": [9, 9], "steps": {EVIL: [6, 6]}}}]}


class Reader(HTMLParser):
    """Collects resources, tags and the cells of the table with the id ``accuracy``."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.rows, self.text = set(), [], [], ""
        self._table = self._cell = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.add(tag)
        self.addresses += [attrs[k] for k in ("src", "href", "srcset", "data", "action") if k in attrs]
        self._table = attrs.get("id") == "accuracy" if tag == "table" else self._table
        if tag == "tr" and self._table:
            self.rows.append([])
        if tag == "td" and self._table:
            self.rows[-1].append("")
        self._cell = tag == "td" or (self._cell and tag not in ("tr", "table", "th"))

    def handle_endtag(self, tag):
        self._table = self._table and tag != "table"
        self._cell = self._cell and tag not in ("td", "table")

    def handle_data(self, data):
        self.text += data
        if self._table and self._cell:
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """A page of seven runs on a simulated assay: folder, comparison, HTML."""
    folder = tmp_path_factory.mktemp("page")
    picture = folder / "crops.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (700, 700, 3), dtype=np.uint8)).save(picture)
    runs = study_runs()
    comparison = compare(runs)
    page = render(study(simulated=True), runs, comparison, {"A sample of crops": picture}, folder)
    return folder, comparison, page.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A page where whatever a user can name is hostile."""
    folder = tmp_path_factory.mktemp("hostile")
    layout = wells(labels=(f"A {EVIL}", "B"), compounds_per_label=2, concentrations=(1,), odd=0)
    layout["Metadata_Compound"] += EVIL
    runs = [
        run(layout, f"evil{EVIL}", (1,), EVIL, choices={EVIL: 2}, transductive=[EVIL], settings={EVIL: EVIL}),
        run(layout, "cellprofiler", (), "", versions={EVIL: EVIL}, cellprofiler={"version": EVIL, "origin": EVIL}),
    ]
    details = study(title=EVIL, description=EVIL, source=EVIL, data=evil_data(), labels={EVIL: 1}, scheme=EVIL, costs=[
        {"what": EVIL, "used_by": [EVIL], "seconds": 1, "detail": EVIL}])  # fmt: skip
    page = render(details, runs, compare(runs), {}, folder)
    return folder, page.read_text(encoding="utf-8")


def test_page_asks_nobody_for_anything(simulated):
    _, _, html = simulated
    reader = Reader(html)
    assert reader.addresses and all(a.startswith(("data:", "#")) for a in reader.addresses)
    assert not reader.tags & {"script", "link", "iframe", "object", "embed"}
    assert not re.search(r"@import|url\(", html)
    assert len(html) < 4_000_000


def test_every_number_of_the_accuracy_table_is_the_comparisons(simulated):
    _, comparison, html = simulated
    rows = [r for r in Reader(html).rows if len(r) == 6]
    assert len(rows) == len(comparison.accuracy) == 18
    for cells, expected in zip(rows, comparison.accuracy.itertuples(), strict=True):
        assert cells[0].startswith(expected.title) and ("permuted labels" in cells[0]) == expected.control
        assert cells[1] == f"{expected.correct}/{expected.n}"
        numbers = [float(x) for cell in cells[2:] for x in re.findall(r"[\d.]+", cell)]
        wanted = [expected.accuracy, expected.low, expected.high, expected.cluster_low, expected.cluster_high,
                  expected.balanced_accuracy]  # fmt: skip
        assert numbers == pytest.approx([100 * w for w in wanted], abs=0.0501)


def test_only_differences_that_survive_holm_are_bold(simulated):
    _, comparison, html = simulated
    bold = re.findall(r'<td class="n differs">([^<]*)</td>', html)
    assert len(bold) == (comparison.pairs["p_holm"] < 0.05).sum() == 4 and set(bold) == {"&lt;\u00a00.001"}


def test_simulated_stands_in_title_banner_captions_and_figures(simulated):
    _, _, html = simulated
    assert re.search(r"<title>[^<]*SIMULATED", html)
    assert 'class="banner"' in html
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", html, re.S)
    assert len(captions) == 2 + 7 + 1 and all("SIMULATED" in c for c in captions)


def test_real_images_are_not_called_simulated(hostile):
    assert "SIMULATED" not in hostile[1] and 'class="banner"' not in hostile[1]


def test_page_tells_what_ran_and_what_was_left_out(simulated):
    text = " ".join(Reader(simulated[2]).text.split())
    for part in (
        "there is no evidence of a difference", "0123456789abcdef", "fedcba9876543210", "torch 2.14.0",
        "CellProfiler 4.2.8", "45 min 12 s", "512 MiB", "normalised per plate", "random_forest (7 folds)", "PP-2",
        "leave one compound out", "13 min 32 s", "actin-b", "Wilson", "Kensert",
    ):  # fmt: skip
        assert part in text, part


def test_what_measured_is_named_and_cited(tmp_path):
    layout = wells()
    record = {"cellprofiler": {"version": "0.3.0", "origin": "cp_measure"}, "role": "classical"}
    html = {}
    for origin in ("cp_measure", "records"):
        record["cellprofiler"]["origin"] = origin
        runs = [run(layout, "profiles", (1,), "Profiles", **record), run(layout, "net", (2,), "Net", role="finetuned")]
        path = render(study(costs=[], description=""), runs, compare(runs), {}, tmp_path / origin)
        html[origin] = " ".join(Reader(path.read_text(encoding="utf-8")).text.split())
    assert "cp_measure (Profiles)" in html["cp_measure"] and "API-first feature extraction" in html["cp_measure"]
    assert "Stirling" not in html["cp_measure"] and "CellProfiler (Profiles)" in html["records"]
    assert "Stirling" in html["records"] and "cp_measure" not in html["records"]


def test_the_spread_over_seeds_is_on_the_page(tmp_path):
    layout = wells()
    runs = [run(layout, "cnn", (1, 2), f"CNN {EVIL}", seeds=(1, 2)), run(layout, "frozen", (), "Frozen", seeds=(1, 2)),
            run(layout, "permuted", range(50), seeds=(1, 2), control=True)]  # fmt: skip
    runs = with_ensembles(runs, ["cnn"])
    html = render(study(), runs, compare(runs), {}, tmp_path).read_text(encoding="utf-8")
    text = " ".join(Reader(html).text.split())
    for part in ("Spread over seeds", "by treatment, 55 of them", "ensemble of 2 seeds", "Deep Confidence",
                 "permuted anew with each seed", "averaged over its seeds 1, 2"):
        assert part in text, part
    assert html.count('<td class="n">mean</td>') == 2 and "<script" not in html  # by treatment and by well
    assert "Spread over seeds" not in render(study(), runs[-1:], compare([one_seed(runs[-1])]), {}, tmp_path).read_text(
        encoding="utf-8")


def one_seed(many):
    return replace(many, predictions=many.predictions[many.predictions["seed"] == 1])


def test_hostile_names_come_out_escaped(hostile):
    folder, html = hostile
    reader = Reader(html)
    assert "script" not in reader.tags and "<script" not in html
    assert reader.text.count("<script>alert('x')</script>") > 12  # shown, not run
    for svg in (folder / "figures").glob("*.svg"):
        assert "<script" not in svg.read_text(encoding="utf-8")
    assert {p.parent for p in folder.rglob("*.svg")} == {folder / "figures"}  # a name is never a path


def test_figures_are_saved_as_svg_and_png(simulated):
    folder, comparison, _ = simulated
    svg = {p.stem for p in (folder / "figures").glob("*.svg")}
    assert svg == {p.stem for p in (folder / "figures").glob("*.png")}
    assert {"accuracy", "treatments"} < svg and len(svg) == 2 + len(comparison.methods)
    assert not list(folder.rglob("*.tmp*"))


def test_large_pictures_are_bounded_and_missing_ones_named(simulated, tmp_path):
    noise = tmp_path / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (1200, 900, 3), dtype=np.uint8)).save(noise)
    kind, raw = data_uri(noise).split(",")
    assert kind == "data:image/jpeg;base64" and len(base64.b64decode(raw)) <= PICTURE_BYTES
    with pytest.raises(MorphobenchError, match=r"absent\.png"):
        data_uri(tmp_path / "absent.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(MorphobenchError, match=r"text\.png"):
        data_uri(tmp_path / "text.png")


def test_durations():
    assert [duration(s) for s in (3.21, 812.3, 7020, None)] == ["3.2 s", "13 min 32 s", "1 h 57 min", "–"]
