"""Bad study files: one message with the key or the line, and never a traceback."""

from __future__ import annotations

from contextlib import chdir
from pathlib import Path

import pytest
import yaml
from bad_input import STUDY, Case, command, each, reader_refuses
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from benchmark.base.errors import MorphobenchError
from benchmark.cli import app
from benchmark.workflow.study import Study, load_study

METHODS = "methods: [{name: position, kind: baseline, feature: position}]\n"
HEAD = "name: mine\nassay: {kind: demo}\n"
GOOD = yaml.safe_dump(STUDY)
#: Nine lists of nine of the list before: 9^9 items when aliases are followed.
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(8))


def text(content: str | bytes):
    """Draws a study file."""
    def draw(folder: Path) -> Path:
        path = folder / "mine.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path
    return draw


CASES = [
    Case("empty", text(""), r"mine\.yaml: is empty\. See benchmark/studies/demo"),
    Case("a list", text("- a\n"), "is not a study"),
    Case("truncated", text("name: mine\nassay: {kind: demo\n"), r"mine\.yaml, line 3: is not valid YAML"),
    Case("binary", text(bytes(range(256))), "line 1: is no text file: it holds a NUL.*Save it as plain text"),
    Case("UTF-16", text(GOOD.encode("utf-16")), "is in UTF-16. Save it again in UTF-8"),
    Case("a NUL", text(GOOD + "\0"), r"line \d+: is no text file: it holds a NUL character. Save"),
    Case("tabs", text("name: mine\nassay:\n\tkind: demo\n"), r"line 3: is not valid YAML .*Indent with blanks"),
    Case("two documents", text("name: mine\n---\nname: other\n"), r"line 2: is not valid YAML \(but found another"),
    Case("a key twice", text(HEAD + "assay: {kind: demo, seed: 3}\n" + METHODS),
         "assay.*(twice|again|2 times)"),
    Case("NO as a name", text("name: NO\nassay: {kind: demo}\n" + METHODS), r"line 1, name: .*\(given: 'NO'\)"),
    Case("code in a tag", text("name: !!python/object/apply:os.system ['touch owned']\n"), "line 1: is not valid YAML"),
    Case("a whole number that is none", text("name: !!int 'x'\n"), "line 1: is not valid YAML .'x' is no whole number"),
    Case("a truth that is none", text("name: !!bool 'x'\n"), "line 1: is not valid YAML .'x' is neither true nor"),
    Case("a date that is none", text("name: !!timestamp '2020-13-45'\n"), "line 1: is not valid YAML .*is no date"),
    Case("5000 digits", text(HEAD + METHODS + f"seeds: [{'9' * 5000}]\n"),
         "line 4: .*a number has 5000 characters.*in quotes"),
    Case("10^30 as a seed", text(HEAD + METHODS + f"seeds: [1{'0' * 30}]\n"), r"seeds\.0: .*less than 4294967296"),
    Case("a negative seed", text(HEAD + METHODS + "seeds: [-1]\n"), r"seeds\.0: Input should be greater than or equal"),
    Case("1e400", text(HEAD + METHODS + "cellprofiler: {timeout_minutes: 1.0e+400}\n"),
         r"cellprofiler\.timeout_minutes: a finite number is wanted"),
    Case("NaN", text(HEAD + METHODS + "cellprofiler: {failed_fields: .nan}\n"),
         r"cellprofiler\.failed_fields: .*finite"),
    Case("10,000 levels", text("a: " + "[" * 10000), "has blocks within blocks without end"),
    Case("60 levels", text("name: mine\nassay: " + "{a: " * 60 + "1" + "}" * 60 + "\n" + METHODS),
         r"line 2, assay\.kind: lacks the key `kind`"),
    Case("a bomb of aliases", text(HEAD + BOMB + "methods: *i\n"),
         r"mine\.yaml: stands for more than 100000 values.*Write out"),
    Case("a list within itself", text(HEAD + "methods: &x [*x]\n"), "line 3: a block holds itself.*Write out"),
    Case("an anchor block", text("x: &a {kind: demo}\nname: mine\nassay: *a\n" + METHODS), "x: there is no such key"),
    Case("half a character", text('title: "\\ud800"\n' + HEAD + METHODS),
         r"line 1: a text holds half a character.*its escape"),
    Case("a control character", text('name: "mi\\u0007ne"\nassay: {kind: demo}\n' + METHODS), r"name: .*'mi\\x07ne'"),
    Case("a path as a name", text("name: ../up\nassay: {kind: demo}\n" + METHODS), r"name: .*'\.\./up'"),
    Case("a kind that is a truth", text("name: mine\nassay: {kind: no}\n" + METHODS),
         r"assay\.kind: .*Allowed: .*'demo'"),
    Case("a kind that is a list", text("name: mine\nassay: {kind: [demo]}\n" + METHODS), r"assay\.kind: .*Allowed"),
    Case("an assay that is a word", text("name: mine\nassay: demo\n" + METHODS), r"assay: .*\(given: 'demo'\)"),
    Case("methods without dashes", text(HEAD + "methods: {a: b}\n"), "line 3, methods: a list is wanted here"),
]


@pytest.mark.parametrize("case", each(CASES))
def test_a_bad_study_is_refused(tmp_path, case):
    path = case.draw(tmp_path)
    reader_refuses(tmp_path, case.says, lambda: load_study(str(path)))


@pytest.mark.parametrize("content", [b"\xef\xbb\xbf" + GOOD.encode(), GOOD.replace("\n", "\r\n").encode(),
                                     yaml.safe_dump(STUDY, default_flow_style=True).encode()])
def test_a_byte_order_mark_line_ends_of_windows_and_json_are_read(tmp_path, content):
    assert load_study(str(text(content)(tmp_path))).name == "mine"


@pytest.mark.parametrize("name", ["2020-01-01", "2020-13-45", "0012", "1e400"])
def test_what_yaml_takes_for_a_date_or_a_number_is_a_name_as_it_is_written(tmp_path, name):
    assert load_study(str(text(f"name: {name}\nassay: {{kind: demo}}\n{METHODS}")(tmp_path))).name == name


def test_the_command_says_it_with_its_exit_status(tmp_path):
    text("name: mine\nassay: {kind: demo\n")(tmp_path)
    status, output = command(tmp_path, "report", "mine.yaml")
    assert status == 2 and "mine.yaml, line 3: is not valid YAML" in output and not (tmp_path / "runs").exists()


def test_the_place_in_the_code_is_shown_to_who_asks_for_it(tmp_path):
    text("name: mine\nassay: {kind: demo\n")(tmp_path)
    with chdir(tmp_path):
        result = CliRunner().invoke(app, ["--debug", "report", "mine.yaml"])
    assert result.exit_code == 2 and "Traceback" in result.output and "study.py" in result.output


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("any") / "mine.yaml"


def study_or_error(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        assert isinstance(load_study(str(path)), Study)
    except MorphobenchError as error:
        assert str(error)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60) | st.text(alphabet=" \n-:{}[]&*!?|>'\"%@`#,ab0.~<\t", max_size=40).map(str.encode))
def test_any_bytes_give_a_study_or_an_error(place, content):
    study_or_error(place, content)
    study_or_error(place, GOOD.encode() + content)


VALUES = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
                      lambda inner: st.lists(inner, max_size=3)
                      | st.dictionaries(st.text(max_size=6), inner, max_size=3), max_leaves=6)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.sampled_from([*Study.model_fields, "assay.columns", "assay.channels", "methods.0.feature"]), value=VALUES)
def test_any_value_of_any_key_gives_a_study_or_an_error(place, key, value):
    raw = yaml.safe_load(GOOD)
    block, last = raw, key.split(".")[-1]
    for part in key.split(".")[:-1]:
        block = block[int(part) if part.isdigit() else part]
    block[last] = value
    study_or_error(place, yaml.safe_dump(raw, allow_unicode=True).encode())
