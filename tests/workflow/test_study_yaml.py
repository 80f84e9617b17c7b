"""The YAML of study files: nothing is taken for what it is not, and every fault has its line."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmark.base.errors import MorphobenchError
from benchmark.cli import app
from benchmark.workflow.study import load_study

HEAD = """name: mine
assay:
  kind: profile_table
  profiles: profiles.csv
  columns: {plate: P, well: W, compound: C, concentration: D, label: L}
  negative_controls: [DMSO]
"""
METHODS = """methods:
  - {name: near, kind: profile, decision: nearest}
"""
GOOD = HEAD + METHODS


def write(folder: Path, text: str | bytes) -> str:
    path = folder / "study.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def refused(folder: Path, text: str | bytes) -> str:
    with pytest.raises(MorphobenchError) as caught:
        load_study(write(folder, text))
    return str(caught.value)


def test_a_key_given_twice_is_refused_with_both_lines(tmp_path):
    path = write(tmp_path, GOOD + "methods:\n  - {name: position, kind: baseline, feature: position}\n")
    for command in (["report", path], ["assay", "check", path]):
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 2 and "methods: the key stands twice, in lines 7 and 9" in done.stderr, done.output
    words = refused(tmp_path, GOOD.replace("plate: P,", "plate: P, 'plate': Q, plate: R,") + "seeds: [1]\nseeds: [2]\n")
    assert "plate: the key stands 3 times, in lines 5, 5 and 5" in words and "seeds: the key stands twice" in words


@pytest.mark.parametrize(("given", "texts"), [
    ("[NO, 5290]", ("NO", "5290")),
    ("[on, Off, yes, true]", ("on", "Off", "yes", "true")),
    ("[1e3, 1.50, 0012, 1_000, 1:30, 0x1F, +5, .5]", ("1e3", "1.50", "0012", "1_000", "1:30", "0x1F", "+5", ".5")),
    ("[2024-01-31, 2024-99-99, .nan, .inf, =]", ("2024-01-31", "2024-99-99", ".nan", ".inf", "=")),
    ("['NO', \"5290\"]", ("NO", "5290")),
])
def test_names_are_read_as_they_are_written(tmp_path, given, texts):
    study = load_study(write(tmp_path, GOOD.replace("[DMSO]", given)))
    assert tuple(study.assay.negative_controls) == texts


def test_keys_and_names_of_columns_are_texts(tmp_path):
    text = GOOD.replace("well: W", "well: 0012").replace("label: L", "label: off") + (
        "cellprofiler: {images: {NO: 5290}, settings: {ImageMath: {on: 1:30, Use: no, By: 16}}}\n")
    study = load_study(write(tmp_path, text))
    assert (study.assay.columns["well"], study.assay.columns["label"]) == ("0012", "off")
    assert study.cellprofiler.images == {"NO": "5290"}
    assert study.cellprofiler.settings == {"ImageMath": {"on": "1:30", "Use": False, "By": 16}}


def test_words_and_numbers_that_look_otherwise_are_what_is_wanted(tmp_path):
    text = GOOD + "quality: {flagged: off}\nseeds: [007, 1]\ncellprofiler: {failed_fields: 1e-1, shard_fields: 012}\n"
    study = load_study(write(tmp_path, text))
    assert study.quality.flagged == "off" and study.seeds == (7, 1)
    assert (study.cellprofiler.failed_fields, study.cellprofiler.shard_fields) == (0.1, 12)


@pytest.mark.parametrize(("more", "words"), [
    ("seeds: [yes]\n", ["line 9, seeds.0", "a whole number is wanted here (given: 'yes')"]),
    ("seeds: [true]\n", ["line 9, seeds.0", "a whole number"]),
    ("seeds: [-1]\n", ["line 9, seeds.0", "greater than or equal to 0"]),
    ("seeds: [99999999999999999999]\n", ["line 9, seeds.0"]),
    (f"seeds: [{'9' * 5000}]\n", ["study.yaml"]),
    ("seeds: [1.5]\n", ["line 9, seeds.0", "a whole number"]),
    ("seeds: 5\n", ["line 9, seeds", "a list is wanted here"]),
    ("quality: [1]\n", ["line 9, quality", "a block of keys"]),
    ("cellprofiler: {timeout_minutes: .inf}\n", ["line 9, cellprofiler.timeout_minutes", "finite"]),
    ("cellprofiler: {timeout_minutes: nan}\n", ["line 9, cellprofiler.timeout_minutes", "finite"]),
    ("cellprofiler: {timeout_minutes: 1:30}\n", ["line 9, cellprofiler.timeout_minutes", "a number", "'1:30'"]),
    ("cellprofiler:\n  timeout_minuts: 3\n", ["line 10, cellprofiler.timeout_minuts", "Did you mean timeout_minutes"]),
    ("title:\n", ["line 9, title", "a text is wanted here (given: nothing)", "in quotes"]),
    ("sead: 1\n", ["line 9, sead: there is no such key. Did you mean seeds"]),
    ("Seeds: [1]\n", ["Did you mean seeds"]),
    ("seeds\u00a0: [1]\n", [r"'seeds\xa0'", "Did you mean seeds"]),
    ("? [a, b]\n: 1\n", ["line 9", "a key is a list or a block"]),
])
def test_wrong_values_are_named_with_their_line(tmp_path, more, words):
    said = refused(tmp_path, GOOD + more)
    assert all(word in said for word in words), said


def test_null_in_a_list_of_names_is_not_a_name(tmp_path):
    said = refused(tmp_path, GOOD.replace("[DMSO]", "[DMSO, null]"))
    assert "line 6, assay.negative_controls.1" in said and "put the word null in quotes" in said


@pytest.mark.parametrize(("text", "words"), [
    ("", ["is empty", "demo.yaml"]),
    ("# nothing\n", ["is empty"]),
    ("just words\n", ["is not a study"]),
    (GOOD + "seeds:\n\t- 1\n", ["line 10", "a tab", "Indent with blanks"]),
    (GOOD + "title: a: b\n", ["line 9", "in quotes"]),
    (GOOD + 'title: "C:\\data"\n', ["line 9", "single quotes"]),
    (GOOD + "title: @x\n", ["line 9", "in quotes"]),
    (GOOD + "title: *x\n", ["line 9", "begins with *"]),
    (GOOD + "title: !x y\n", ["line 9", "begins with !"]),
    (GOOD + "title: !!int x\n", ["line 9: is not valid YAML ('x' is no whole number)", "take away the !!"]),
    (GOOD + "title: !!bool x\n", ["line 9: is not valid YAML ('x' is neither true nor false)"]),
    (GOOD + f"seeds: [{'9' * 5000}]\n", ["line 9: is not valid YAML (a number has 5000 characters)"]),
    (GOOD + 'title: "\\ud800"\n', ["line 9: a text holds half a character"]),
    (GOOD + "---\n" + GOOD, ["one study"]),
    (GOOD + "title: a\x07b\n", ["line 9", "U+0007"]),
    (GOOD + 'title: "\\UFFFFFFFF"\n', ["study.yaml"]),
    (GOOD + "seeds: " + "[" * 20000, ["study.yaml"]),
    (GOOD.encode() + b"title: caf\xe9\n", ["line 9", "not in UTF-8", "0xE9"]),
    (GOOD.encode("utf-16"), ["is in UTF-16", "Save it again in UTF-8"]),
    (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", ["line 3: is no text file", "Save it as plain text in UTF-8"]),
    (b"# " + b"x" * 3 * 2**20, ["has 3 MB and is no study"]),
    ("a: &a [*a]\n", ["holds itself"]),
    ("a: &a {<<: *a}\n", ["holds itself"]),
    ("a: &a [x, x]\n" + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]\n"
                                  for i in range(9)), ["stands for more than 100000 values"]),
    ("a: &a {k: 1}\n" + "".join(f"{chr(98 + i)}: &{chr(98 + i)} {{<<: [{', '.join(['*' + chr(97 + i)] * 9)}]}}\n"
                                  for i in range(9)), ["stands for more than 100000 values"]),
])
def test_files_that_are_no_study_are_one_clear_error(tmp_path, text, words):
    said = refused(tmp_path, text)
    assert all(word in said for word in words) and len(said.splitlines()) == 1, said


def test_blocks_may_be_shared(tmp_path):
    text = HEAD + ("methods:\n  - &near {name: near, kind: profile, decision: nearest}\n"
                   "  - {<<: *near, name: other}\n")
    assert [m.name for m in load_study(write(tmp_path, text)).methods] == ["near", "other"]
    assert load_study(write(tmp_path, "\ufeff" + GOOD)).name == "mine"


def test_names_that_lead_elsewhere_are_no_studies(tmp_path):
    (tmp_path / "folder.yaml").mkdir()
    for name, words in ((tmp_path / "folder.yaml", "is a folder"), ("x" * 5000, "too long"), ("a\0b.yaml", "no path"),
                        ("../demo", "no study"), ("/etc/passwd", "no YAML file")):
        with pytest.raises(MorphobenchError, match=words):
            load_study(str(name))
    for name in ("../up", "a/b", "..", "", "x" * 61, "NAME", "a\\nb"):
        assert "line 1, name" in refused(tmp_path, GOOD.replace("name: mine", f'name: "{name}"'))
    for name in ("../up", "a/b", "crops", "NO"):
        assert "method" in refused(tmp_path, GOOD.replace("name: near", f"name: {name}"))
