"""Bad tables of profiles."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest
import yaml
from bad_input import STUDY, Case, command, command_refuses, each

COLUMNS = {"plate": "Metadata_Plate", "well": "Metadata_Well", "compound": "drug", "concentration": "dose",
           "label": "moa"}
RNG = np.random.default_rng(0)
TABLE = pd.DataFrame([{"Metadata_Plate": "P1", "Metadata_Well": f"A{i + 1:02d}", "drug": f"drug {i}", "dose": 1.0,
                       "moa": "xy"[i % 2], "Cells_A": RNG.normal(), "Cells_B": RNG.normal()} for i in range(8)])
TEXT = TABLE.to_csv(index=False)


def profiles(content: str | bytes | pd.DataFrame | Callable[[Path], Any], name: str = "p.csv", **assay: Any):
    """Draws a study on a file of profiles: its bytes, a table, or what writes it."""
    def draw(folder: Path) -> None:
        path = folder / name
        if isinstance(content, pd.DataFrame):
            content.to_parquet(path, index=False) if name.endswith(".parquet") else content.to_csv(path, index=False)
        elif callable(content):
            content(path)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        block = {"kind": "profile_table", "profiles": name, "columns": COLUMNS, **assay}
        (folder / "mine.yaml").write_text(yaml.safe_dump({**STUDY, "assay": block}))
    return draw


def parquet(**columns: Any):
    return profiles(TABLE.assign(**columns), "p.parquet")


def cut_off(path: Path) -> None:
    TABLE.to_parquet(path)
    path.write_bytes(path.read_bytes()[:-40])


def twice_a_column(path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table([[1.0], [2.0]], names=["a", "a"]), path)


def objects() -> bytes:
    out = io.BytesIO()
    np.save(out, np.array([{"a": 1}], object), allow_pickle=True)
    return out.getvalue()


AGAIN = "Copy or export it again"
CASES = [
    Case("empty", profiles(b""), rf"p\.csv: is empty\. {AGAIN}"),
    Case("a header alone", profiles(TABLE.iloc[:0]), r"p\.csv: has no rows"),
    Case("cut off within a row", profiles(TEXT[:-30]), f"truncated.*{AGAIN}"),
    Case("UTF-16", profiles(TEXT.encode("utf-16")), "is not UTF-8 text.*`CSV UTF-8`"),
    Case("semicolons", profiles(TEXT.replace(",", ";")),
         "has a single column, 'Metadata_Plate.*assay.separator to ';'"),
    Case("a row too long", profiles(TEXT.rstrip() + ",9\n"), f"Expected 7 columns, got 8.*{AGAIN}"),
    Case("a quote that is not closed", profiles(TEXT.replace("drug 2", '"drug 2')), f"cannot be read.*{AGAIN}"),
    Case("a column twice", profiles(TEXT.replace("Cells_B", "Cells_A", 1)), "'Cells_A' appears 2 times"),
    Case("a feature with a word", profiles(TEXT.replace(str(TABLE["Cells_A"][1]), "two")),
         "row 3: Cells_A holds 'two', and features are numbers"),
    Case("no value at all", profiles(TABLE.assign(Cells_A=np.nan, Cells_B=np.nan)), "has no value of any feature"),
    Case("no feature", profiles(TABLE.drop(columns=["Cells_A", "Cells_B"])), "has no feature.*Set assay.prefixes"),
    Case("no column of compounds", profiles(TABLE.drop(columns="drug")), "has no column 'drug'.*It has"),
    Case("no column of plates", profiles(TABLE.drop(columns="Metadata_Plate")), "no column.*Metadata_Plate"),
    Case("no plate anywhere", profiles(TABLE.assign(Metadata_Plate="")),
         r"8 rows \(2, 3, 4, …\): Metadata_Plate is empty"),
    Case("one well empty", profiles(TABLE.assign(Metadata_Well=TABLE["Metadata_Well"].where(TABLE.index != 1))),
         "row 3.*Metadata_Well is empty"),
    Case("rows of a well at odds", profiles(pd.concat([TABLE, TABLE.iloc[[0]].assign(drug="other")])),
         "well A01: rows of the well disagree on (Metadata_Compound|drug)"),
    Case("every well alike", profiles(TABLE.assign(Cells_A=1.0, Cells_B=2.0)),
         "has no feature.*they hold one value in all rows.*Set assay.prefixes"),
    Case("a well copied", profiles(TABLE.assign(**{c: TABLE[c].where(TABLE.index != 1, TABLE[c][0])
                                                    for c in ("Cells_A", "Cells_B")})),
         "2 wells have the very same features: P1 A01, P1 A02.*take the copies out"),
    Case("a negative dose everywhere", profiles(TABLE.assign(dose=-1)), "-1.*at least 0"),
    Case("a dose of 400 digits", profiles(TABLE.assign(dose="1" + "0" * 400)), "the concentration is '10{59}…', not"),
    Case("a path too long", profiles(TEXT, profiles="a" * 3000 + ".csv"), "no path that can be used.*too long"),
    Case("metadata that are a folder", profiles(TEXT, metadata="."), "does not exist|is a folder"),
    Case("empty parquet", profiles(b"", "p.parquet"), rf"p\.parquet: cannot be read.*{AGAIN}"),
    Case("parquet cut off", profiles(cut_off, "p.parquet"), rf"p\.parquet: cannot be read.*{AGAIN}"),
    Case("CSV named parquet", profiles(TEXT, "p.parquet"), rf"p\.parquet: cannot be read.*{AGAIN}"),
    Case("parquet with a column twice", profiles(twice_a_column, "p.parquet"), "the column 'a' appears 2 times"),
    Case("parquet of lists", parquet(Cells_A=[[1.0]] * 8),
         r"Cells_A is stored as list.*features are numbers\. Correct it"),
    Case("parquet of dates", parquet(Cells_A=pd.Timestamp("2020-01-01")), "Cells_A is stored as timestamp.*numbers"),
    Case("parquet of numbers as text", parquet(Cells_A=["1.5"] * 8), "Cells_A is stored as text.*numbers"),
    Case("parquet of bytes", parquet(Metadata_Plate=[b"\xff"] * 8), "is not UTF-8 text"),
    Case("a pickle", profiles(TABLE.to_pickle, "p.pkl"), "is neither parquet nor CSV by its name"),
    Case("a pickle named CSV", profiles(lambda p: TABLE.to_pickle(p, compression=None)), "is not UTF-8 text"),
    Case("a pickle named parquet", profiles(lambda p: TABLE.to_pickle(p, compression=None), "p.parquet"), "cannot be"),
    Case("NumPy objects", profiles(objects(), "p.npy"), "is neither parquet nor CSV by its name"),
    Case("NumPy objects named CSV", profiles(objects()), "is not UTF-8 text"),
    Case("gzip that expands absurdly", profiles(gzip.compress(TEXT.split("\n")[0].encode() + b"\n" + b"0" * 40_000_000),
                                               "p.csv.gz"), rf"p\.csv\.gz: cannot be read.*{AGAIN}"),
    Case("gzip cut off", profiles(gzip.compress(TEXT.encode())[:-9], "p.csv.gz"), f"cannot be read.*{AGAIN}"),
    Case("text named gzip", profiles(TEXT, "p.csv.gz"), "cannot be read.*Not a gzipped file"),
]


@pytest.mark.parametrize("case", each(CASES))
def test_bad_profiles_are_refused(tmp_path, case):
    case.draw(tmp_path)
    command_refuses(tmp_path, case.says, "assay", "check", "mine.yaml")


SOUND = [
    Case("a byte order mark", profiles(TEXT.encode("utf-8-sig")), "2 features in 8 rows"),
    Case("line ends of an old Mac", profiles(TEXT.replace("\n", "\r")), "2 features in 8 rows"),
    Case("a blank line first", profiles("\n" + TEXT), "2 features in 8 rows"),
    Case("infinities", profiles(TABLE.assign(Cells_A=TABLE["Cells_A"].where(TABLE.index > 3, np.inf))),
         "4 infinite values treated as missing"),
    Case("nothing but infinities in a column", profiles(TABLE.assign(Cells_A=np.inf)),
         "1 of 2 columns of p.csv left out"),
    Case("1e400", profiles(TEXT.replace(str(TABLE["Cells_A"][1]), "1e400")), "1 infinite values treated as missing"),
    Case("HTML in a name", profiles(TABLE.rename(columns={"Cells_A": "Cells_<script>"})), "2 features in 8 rows"),
    Case("whole numbers of 62 bits", parquet(Cells_A=[2**62 + (7 * i % 8) ** 2 * 2**20 for i in range(8)]),
         "2 features in 8 rows"),
    Case("a table's index", profiles(lambda p: TABLE.to_csv(p), prefixes=[]), "2 features in 8 rows"),
]


@pytest.mark.parametrize("case", each(SOUND))
def test_odd_but_acceptable_profiles_are_read(tmp_path, case):
    case.draw(tmp_path)
    status, output = command(tmp_path, "assay", "check", "mine.yaml")
    assert status == 0 and case.says in output, output
