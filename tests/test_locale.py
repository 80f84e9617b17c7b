"""The command line where there is no locale: names beyond ASCII are read and said, never a UnicodeEncodeError."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

STUDY = """name: mine
assay:
  kind: table
  csv: fields.csv
  columns: {plate: Plate, well: Well, compound: Drug, concentration: Dose, label: MoA}
  channels: {DNA: {file: "{File}"}}
methods:
  - {name: i, kind: baseline, feature: intensity}
"""


@pytest.mark.parametrize("environ", [{"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"},
                                     {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}])
def test_messages_hold_any_letters_without_a_locale(tmp_path, environ):
    folder = tmp_path / "écran µ"
    folder.mkdir()
    (folder / "study.yaml").write_text(STUDY, encoding="utf-8")
    (folder / "fields.csv").write_text("Plate,Well,Drug,Dose,MoA,File\nµ1,A01,β-x,1,α,é.tif\n", encoding="utf-8")
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "PYTHON"))}
    for command in (["assay", "check", "study.yaml"], ["report", "study.yaml"], ["report", "--help"]):
        done = subprocess.run([sys.executable, "-m", "benchmark.cli", *command], cwd=folder, capture_output=True,
                              env={**plain, **environ, "PYTHONPATH": str(Path(__file__).parents[1])}, check=False)
        said = done.stdout.decode("utf-8") + done.stderr.decode("utf-8")
        assert "Traceback" not in said and "UnicodeEncodeError" not in said, said
        wanted = 0 if "--help" in command else 1 if command[0] == "assay" else 2
        if "PYTHONUTF8" in environ and "--help" not in command:  # files cannot have such names at all
            wanted = 2
            assert "Set PYTHONUTF8=1" in said
        assert done.returncode == wanted, said
