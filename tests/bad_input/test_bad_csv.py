"""Bad tables of fields: one fault for one cause, with its rows and the setting that mends it."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
from bad_input import HEADER, ROWS, STUDY, Case, command, command_refuses, each, write_study

TEXT = "\n".join([HEADER, *ROWS]) + "\n"
COLUMNS = STUDY["assay"]["columns"]


def table(content: str | bytes | None = None, **changes: Any):
    """Draws a study whose CSV is ``content``; or with other rows, another header or other settings."""
    def draw(folder: Path) -> None:
        write_study(folder, **changes)
        if content is not None:
            (folder / "plan.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    return draw


def cell(old: str, new: str, **changes: Any):
    """The same with one cell of the second row changed."""
    assert old in ROWS[1]
    return table(rows=[ROWS[0], ROWS[1].replace(old, new), *ROWS[2:]], **changes)


def with_site(value: str):
    return table(header=HEADER + ",Site", rows=[f"{r},{value}" for r in ROWS], columns={**COLUMNS, "site": "Site"})


def linked(folder: Path) -> None:
    cell("f1.tif", "l.tif")(folder)
    (folder / "l.tif").symlink_to("/etc/passwd")


def looped(folder: Path) -> None:
    cell("f1.tif", "l.tif")(folder)
    (folder / "l.tif").symlink_to("l.tif")


def gzipped(content: bytes):
    def draw(folder: Path) -> None:
        write_study(folder, csv="plan.csv.gz")
        (folder / "plan.csv.gz").write_bytes(content)
    return draw


CASES = [
    Case("empty", table(b""), r"plan\.csv: is empty"),
    Case("a header alone", table(rows=[]), r"plan\.csv: has no rows below its header"),
    Case("UTF-16", table(TEXT.encode("utf-16")), "is not UTF-8 text.*Save it as `CSV UTF-8`"),
    Case("UTF-16 without a mark", table(TEXT.encode("utf-16-le")), "a NUL character.*no UTF-8 text.*`CSV UTF-8`"),
    Case("Latin-1", table(TEXT.replace("drug 1", "5µ").encode("latin-1")), r"is not UTF-8 text \(byte \d+\)"),
    Case("a NUL in a cell", cell("drug 1", "dr\0ug"), r"plan\.csv, row 3: holds a NUL"),
    Case("semicolons", table(TEXT.replace(",", ";")), "has a single column, 'Plate;Well.*Set assay.separator to ';'"),
    Case("tabs", table(TEXT.replace(",", "\t")), r"has a single column.*Set assay.separator to '\\t'"),
    Case("a separator that it does not have", table(separator="|"), "single column.*Set assay.separator to ','"),
    Case("a quote that is not closed", table(TEXT.replace("drug 2", '"drug 2')), "is not CSV.*Check quotes"),
    Case("one row too long", table(rows=[*ROWS, ROWS[0] + ",x"]), r"row 10: has 7 cells where the header has 6"),
    Case("120 rows too long", table(rows=[r + ",x" for r in ROWS * 15]),
         r"120 rows \(2, 3, 4, …\): has 7 cells where.*assay.separator"),
    Case("a column twice", table(header=HEADER.replace("Dose", "Drug")), "the column 'Drug' appears 2 times"),
    Case("a workbook of Excel", table(b"PK\x03\x04\x14\0\x06\0\x08\0"), "no rows|not UTF-8|NUL"),
    Case("a gzip file cut off", gzipped(gzip.compress(TEXT.encode())[:-12]), "is no whole gzip file.*copy it again"),
    Case("a cell of 200,000 characters", cell("drug 1", "x" * 200_000), "is not CSV .*field larger"),
    Case("a folder", table(csv="."), "does not exist|is a folder"),
    Case("a path too long", table(csv="a" * 5000), "no path that can be used.*too long"),
    Case("a NUL in a path", table(root="a\0b"), "no path that can be used.*null"),
    Case("the home of nobody", table(csv="~nobody-here/plan.csv"), "home folder of a user who is not known"),
    Case("a dose NaN", cell(",1,", ",nan,"), "row 3: the concentration is empty. Give µM"),
    Case("a dose infinity", cell(",1,", ",inf,"), "row 3: the concentration is 'inf'"),
    Case("a dose 1e400", cell(",1,", ",1e400,"), "row 3: the concentration is '1e400'"),
    Case("a dose of 400 digits", cell(",1,", f",{'9' * 400},"), "row 3: the concentration is '9{60}…', not"),
    Case("a decimal comma", cell(",1,", ',"0,5",'), "row 3: .*'0,5'.*Write decimals with a point"),
    Case("a unit in every dose", table(rows=[r.replace(",1,", ",1 uM,") for r in ROWS]),
         r"8 rows \(2, 3, 4, …\): .*'1 uM', not a number"),
    Case("a negative dose everywhere", table(rows=[r.replace(",1,", ",-1,") for r in ROWS]),
         r"8 rows.*-1|rows? 2, 3.*-1"),
    Case("no plate anywhere", table(rows=[r.replace("P1", "") for r in ROWS]), "Plate is empty"),
    Case("one compound empty", cell("drug 1", ""), "row 3.*[Cc]ompound|Drug.*empty"),
    Case("one label for all", table(rows=[r.replace(",y,", ",x,") for r in ROWS]),
         "the label 'x': there is nothing to"),
    Case("a compound of two labels", cell("drug 1", "drug 2"), "drug 2.*several labels.*one label"),
    Case("a row twice", table(rows=[*ROWS, ROWS[0]]),
         "row 10.*names the same image planes as an earlier row. Remove the row"),
    Case("../ in a path", cell("f1.tif", "../f1.tif"),
         r"row 3, File, '\.\./f1\.tif': leads out .*Set assay.root to .*below"),
    Case("an absolute path", cell("f1.tif", "/etc/passwd"), "row 3, File, '/etc/passwd': leads out.*Set assay.root"),
    Case("a link that leads out", linked,
         r"row 3, File, 'l\.tif': leads out.*is a link to /etc/passwd.*copy the images"),
    Case("a link to itself", looped, r"row 3, File, 'l\.tif': .*links lead in a circle.*must lie below"),
    Case("a file name of 5000 letters", cell("f1.tif", "a" * 5000 + ".tif"),
         "row 3, File, 'a{60}…': .*more than 255 bytes.*Check assay.channels"),
    Case("../ in every path", table(rows=[r.replace(",f", ",../f") for r in ROWS]), "leads out"),
    Case("a bell in a name", cell("drug 1", "dr\x07ug"), r"row 3: Drug is 'dr\\x07ug', which holds control characters"),
    Case("a terminal's escape in a label", table(rows=[r.replace(",y,", ",\x1b[2Jy,") for r in ROWS]),
         r"4 rows \(3, 5, 7, …\): MoA is '\\x1b\[2Jy', which holds control"),
    Case("a line end in a name", cell("drug 1", '"dr\nug"'), "Drug is .*control characters. Type the name again"),
    Case("a plane 10^30", table(channels={"DNA": {"file": "{File}", "plane": 10**30}}), "no plane 10+"),
    Case("a plane -1", table(channels={"DNA": {"file": "{File}", "plane": -1}}), r"channels\.DNA\.plane: .*greater"),
    Case("a variable that is not set", table(csv="${NOT_SET_HERE}/a.csv"), "NOT_SET_HERE is not set.*export"),
]


@pytest.mark.parametrize("case", each(CASES))
def test_a_bad_table_is_refused(tmp_path, case):
    case.draw(tmp_path)
    command_refuses(tmp_path, case.says, "assay", "check", "mine.yaml")


SOUND = [
    Case("a byte order mark", table(b"\xef\xbb\xbf" + TEXT.encode()), "8 wells, 8 compounds"),
    Case("line ends of an old Mac", table(TEXT.replace("\n", "\r")), "8 wells, 8 compounds"),
    Case("blank lines", table(TEXT.replace("\n", "\n\n")), "8 wells, 8 compounds"),
    Case("a formula", cell("drug 1", "=cmd|' /C calc'!A0"), "8 wells, 8 compounds"),
    Case("HTML", cell("drug 1", "<script>alert(1)</script>"), "8 wells, 8 compounds"),
    Case("sites of 10^30", with_site("1" + "0" * 30), "8 wells, 8 compounds"),
    Case("a dose of 1e308", table(rows=[r.replace(",1,", ",1e308,") for r in ROWS]), "8 wells, 8 compounds"),
]


@pytest.mark.parametrize("case", each(SOUND))
def test_odd_but_acceptable_tables_are_read(tmp_path, case):
    case.draw(tmp_path)
    status, output = command(tmp_path, "assay", "check", "mine.yaml")
    assert status == 0 and case.says in output and "no fault found" in output
