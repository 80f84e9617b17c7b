"""Bad CellProfiler pipelines: told by the check, before CellProfiler is started."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import yaml
from bad_input import STUDY, Case, command, command_refuses, each, write_study

from benchmark.base.files import PROJECT

OURS = (PROJECT / "pipelines" / "analysis.cppipe").read_text(encoding="utf-8")
OLD = """CellProfiler Pipeline: http://www.cellprofiler.org
Version:1
SVNRevision:11710

LoadImages:[module_num:1|svn_version:'11587'|variable_revision_number:11|show_window:True|notes:[]]
    What type of files are you loading?:individual images
"""


def pipeline(content: str | bytes | None, name: str = "own.cppipe", **settings: Any):
    """Draws a study of three channels that measures by a pipeline; with None there is no file."""
    def draw(folder: Path) -> None:
        path = write_study(folder, channels={c: {"file": "{File}", "plane": i}
                                             for i, c in enumerate(("DNA", "Tubulin", "Actin"))})
        rng = np.random.default_rng(0)
        for image in folder.glob("f?.tif"):
            tifffile.imwrite(image, rng.integers(0, 999, (3, 8, 8), dtype=np.uint16), photometric="minisblack")
        study = yaml.safe_load(path.read_text())
        study["methods"] = [{"name": "cp", "kind": "profile", "profile": {"normalise": "training"}}]
        path.write_text(yaml.safe_dump({**STUDY, **study, "cellprofiler": {"pipeline": name, **settings}}))
        if content is not None:
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return draw


EXPORT = "Export it from CellProfiler as .cppipe"
CASES = [
    Case("empty", pipeline(b""), rf"own\.cppipe: is not a CellProfiler pipeline\. {EXPORT}"),
    Case("binary", pipeline(bytes(range(256))), rf"own\.cppipe: is not a text pipeline\. {EXPORT}"),
    Case("JSON", pipeline(json.dumps({"modules": []}), "p.json"),
         rf"p\.json: is not a CellProfiler pipeline\. {EXPORT}"),
    Case("a project", pipeline(b"\x89HDF\r\n\x1a\n", "p.cpproj"), rf"p\.cpproj: is not a text pipeline\. {EXPORT}"),
    Case("a pipeline of MATLAB's time", pipeline(b"MATLAB 5.0 MAT-file", "p.mat"), rf"p\.mat: is not a .*{EXPORT}"),
    Case("a page of a website", pipeline("<html>404</html>"), f"is not a CellProfiler pipeline.*{EXPORT}"),
    Case("UTF-16", pipeline(OURS.encode("utf-16")), f"is not a text pipeline.*{EXPORT}"),
    Case("a NUL", pipeline(OURS.replace("Nuclei", "Nu\0clei")), f"is not a text pipeline: .*NUL.*{EXPORT}"),
    Case("a header alone", pipeline(OURS.splitlines()[0] + "\n"), "has no modules.*Save it again"),
    Case("cut off", pipeline(OURS[:len(OURS) // 2]), r"line \d+ is neither a module nor a setting.*Save it again"),
    Case("twice in one file", pipeline(f"{OURS}\n{OURS}"), r"line \d+ is neither a module nor a setting"),
    Case("of CellProfiler 2", pipeline(OLD), "of an older CellProfiler: LoadImages is no module.*Open it in"),
    Case("a module that is gone", pipeline(OURS + "\nSubtractBackground:[module_num:99|enabled:True]\n"),
         "SubtractBackground is no module of CellProfiler 4"),
    Case("missing", pipeline(None), r"own\.cppipe: no such pipeline\. Set cellprofiler\.pipeline"),
    Case("a folder", pipeline(None, "."), r"is a folder, not a pipeline\. Set cellprofiler\.pipeline to a"),
    Case("a name too long", pipeline(None, "a" * 5000), "no path that can be used.*too long"),
    Case("a NUL in its name", pipeline(None, "a\0b"), "no path that can be used.*null"),
    Case("without ExportToSpreadsheet", pipeline(OURS.replace("ExportToSpreadsheet:[", "ExportToDatabase:[")),
         "has no ExportToSpreadsheet module. Add it at the end"),
    Case("a prefix that leads out", pipeline(OURS.replace("Filename prefix:MyExpt_", "Filename prefix:../../x").replace(
        "to file names?:No", "to file names?:Yes")), r"puts '\.\./\.\./x' before its file names.*without slashes"),
    Case("an image of another name", pipeline(OURS.replace("OrigActin", "OrigMito")), "loads OrigMito.*map images in"),
    Case("a channel that is not there", pipeline(OURS, images={"OrigDNA": "Nope"}), "no channel 'Nope'.*map images"),
    Case("a module that it does not have", pipeline(OURS, settings={"Nope": {"a": 1}}), "no module 'Nope'. It has: "),
    Case("objects that it does not make", pipeline(OURS, nuclei="Blobs"), "makes no objects 'Blobs'. It makes Nuclei"),
    Case("an endless timeout", pipeline(OURS, timeout_minutes=float("inf")), "timeout_minutes: .*finite number"),
    Case("shards of nothing", pipeline(OURS, shard_fields=0), "shard_fields: .*greater than or equal to 1"),
]


@pytest.mark.parametrize("case", each(CASES))
def test_a_bad_pipeline_is_refused(tmp_path, case):
    case.draw(tmp_path)
    command_refuses(tmp_path, case.says, "assay", "check", "mine.yaml")


@pytest.mark.parametrize("content", [OURS, "\ufeff" + OURS, OURS.replace("\n", "\r\n")])
def test_a_byte_order_mark_and_line_ends_of_windows_are_read(tmp_path, content):
    pipeline(content)(tmp_path)
    status, output = command(tmp_path, "assay", "check", "mine.yaml")
    assert status == 0, output
