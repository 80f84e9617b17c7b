"""Bad archives, through `assay fetch` from a server; what `unpack` itself refuses is in tests/assays/fetching."""

from __future__ import annotations

import io
import re
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest
from bad_input import Case, command, each
from fake_server import FIRST, PLATES, plate_archive

PLATE = PLATES[0]
NOISE = np.random.default_rng(0).bytes(3000)


def zipped(*members: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return out.getvalue()


def special(kind: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("a.tif")
    info.external_attr = (kind | 0o777) << 16
    return info


def flipped() -> bytes:
    content = bytearray(zipped(("a.tif", NOISE)))
    content[200] ^= 4
    return bytes(content)


#: What is fetched before the archives.
TABLES = {"BBBC021_v1_compound.csv", "BBBC021_v1_image.csv", "BBBC021_v1_moa.csv", "lock.json", ".fetching"}
DISTRUST = "Do not use this archive"
CASES = [
    Case("empty", lambda _: b"", "zip|empty|bytes"),
    Case("a page of a website", lambda _: b"<html>404</html>",
         "is no sound zip archive.*fetched twice.*damaged on its"),
    Case("cut off", lambda _: plate_archive(PLATE)[:-400], "is no sound zip archive.*damaged on its way"),
    Case("a flipped bit", lambda _: flipped(), "'a.tif': .*damaged on its way"),
    Case("../ in a name", lambda _: zipped(("../a.tif", NOISE)), rf"'\.\./a\.tif'.*lead out of the folder.*{DISTRUST}"),
    Case("an absolute name", lambda _: zipped(("/etc/a.tif", NOISE)), f"could lead out of the folder.*{DISTRUST}"),
    Case("a drive of Windows", lambda _: zipped(("C:\\a.tif", NOISE)), f"could lead out.*{DISTRUST}"),
    Case("a bell in a name", lambda _: zipped(("a\x07.tif", NOISE)), f"could lead out.*{DISTRUST}"),
    Case("a link", lambda _: zipped((special(stat.S_IFLNK), b"/etc/passwd")), f"is a link or a special.*{DISTRUST}"),
    Case("a device", lambda _: zipped((special(stat.S_IFBLK), b"")), f"is a link or a special file.*{DISTRUST}"),
    Case("one file twice", lambda _: zipped(("a.tif", NOISE), ("A.TIF", NOISE)), f"in the archive twice.*{DISTRUST}"),
    Case("30 MB of zeros", lambda _: zipped(("a.tif", bytes(30_000_000))), f"would unpack from .*{DISTRUST}"),
    Case("no image", lambda _: zipped(("a.exe", NOISE)), "holds no image.*check the address"),
    Case("images of another plate", lambda _: plate_archive(PLATES[1]), f"holds none of the .* {PLATE}.*plate's name"),
]


@pytest.mark.parametrize("case", each(CASES))
def test_a_bad_archive_is_refused(tmp_path, server, monkeypatch, case):
    server.files[FIRST] = case.draw(tmp_path)
    monkeypatch.setenv("MORPHOBENCH_BBBC_URL", server.url)
    status, output = command(tmp_path, "assay", "fetch", "bbbc021", "--plates", PLATE, "--to", str(tmp_path / "data"))
    assert status == 2 and re.search(case.says, output, re.DOTALL), output
    assert FIRST.rsplit("/", 1)[-1] in output
    left = {p.name for p in (tmp_path / "data").rglob("*") if p.is_file()}
    assert left <= TABLES, left
    assert not (tmp_path / "data" / "bbbc021" / PLATE).exists() and not Path("/etc/a.tif").exists()


@pytest.mark.parametrize(("arguments", "says"), [
    (("bbbc999",), "no collection 'bbbc999'.*Known: bbbc021, bbbc014, bbbc013"),
    (("bbbc021", "--plates", "../x"), r"\.\./x"),
    (("bbbc021", "--jobs", "0"), "greater than or equal to 1"),
    (("bbbc021", "--jobs", "many"), "valid integer"),
])
def test_bad_arguments_of_a_fetch_are_refused(tmp_path, server, monkeypatch, arguments, says):
    monkeypatch.setenv("MORPHOBENCH_BBBC_URL", server.url)
    status, output = command(tmp_path, "assay", "fetch", *arguments, "--to", str(tmp_path / "data"))
    assert status == 2 and re.search(says, output, re.DOTALL), output


def test_a_file_in_the_place_of_the_data_folder_is_said(tmp_path, server, monkeypatch):
    monkeypatch.setenv("MORPHOBENCH_BBBC_URL", server.url)
    (tmp_path / "data").write_text("x")
    status, output = command(tmp_path, "assay", "fetch", "bbbc013", "--to", str(tmp_path / "data"))
    assert status == 2 and "cannot be written (Not a directory). Mend that" in output
