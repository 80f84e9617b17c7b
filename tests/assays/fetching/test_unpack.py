"""Archives from the network: what comes out, and what is refused before anything does."""

from __future__ import annotations

import io
import stat
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.assays.fetching import unpack as room
from benchmark.assays.fetching.unpack import LIMITS, Limits, NoRoomError, plan, unpack
from benchmark.base.errors import MorphobenchError
from benchmark.base.files import sha256_file

NOISE = np.random.default_rng(0).bytes(5000)


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as z:
        for name, data in members.items():
            z.writestr(name, data)
    return out.getvalue()


@pytest.fixture
def put(tmp_path):
    """Write an archive; give its path."""
    def write(data: bytes) -> Path:
        path = tmp_path / "a.zip"
        path.write_bytes(data)
        return path
    return write


def refused(archive: Path, match: str, limits: Limits = LIMITS) -> None:
    """The archive is refused, and nothing at all has been written."""
    before = sorted(archive.parent.rglob("*"))
    with pytest.raises(MorphobenchError, match=match) as caught:
        unpack(archive, archive.parent / "out" / "deep", limits)
    assert "a.zip" in str(caught.value)
    assert [p for p in sorted(archive.parent.rglob("*")) if p not in before and p.is_file()] == []


@pytest.mark.parametrize("prefix", ["", "Week1_22123/", "a/b/"])
def test_with_or_without_a_folder_the_images_land_alike(put, tmp_path, prefix):
    names = ["A.tif", "b.TIFF", "c.Bmp", "d.png"]
    extra = {f"{prefix}Thumbs.db": b"x", f"__MACOSX/{prefix}._A.tif": b"x", f"{prefix}.hidden.tif": b"x",
             "readme.exe": b"MZ"}
    archive = put(zipped({**{prefix + n: NOISE + n.encode() for n in names}, **extra}))
    out = tmp_path / "out"
    (out / "old").mkdir(parents=True)
    got = unpack(archive, out)
    assert got.skipped == len(extra)
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*")) == sorted(names)
    assert got.files == {n: (len(NOISE) + len(n), sha256_file(out / n)) for n in names}
    assert (out / "A.tif").read_bytes() == NOISE + b"A.tif"


def test_folders_that_are_not_shared_stay(put, tmp_path):
    got = unpack(put(zipped({"w/x/a.tif": b"1", "w/y/a.tif": b"2", "w/empty/": b""})), tmp_path / "out")
    assert set(got.files) == {"x/a.tif", "y/a.tif"}
    assert (tmp_path / "out/y/a.tif").read_bytes() == b"2"


@pytest.mark.parametrize("name", [
    "../a.tif", "x/../../a.tif", "/etc/a.tif", "C:/a.tif", "C:a.tif", "..\\a.tif", "x\\a.tif", "x//a.tif", "./a.tif",
    "a\nb.tif", "a.tif\x00.png", "../Thumbs.db", "x" * 300 + ".tif", "..",
])
def test_names_that_lead_out_are_refused(put, name):
    info = zipfile.ZipInfo("good.tif")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        z.writestr("fine.tif", b"x")
        info.filename = info.orig_filename = name  # ZipInfo() itself would tidy it
        z.writestr(info, b"evil")
    refused(put(out.getvalue()), "lead out of the folder")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
def test_links_and_devices_are_refused(put, kind):
    info = zipfile.ZipInfo("a.tif")
    info.external_attr = (kind | 0o777) << 16
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        z.writestr("fine.tif", b"x")
        z.writestr(info, b"/etc/passwd")
    refused(put(out.getvalue()), "link or a special file")


@pytest.mark.parametrize("names", [("x/a.tif", "x/A.TIF"), ("a.tif", "a.tif"), ("é.tif", "e\u0301.tif")])
def test_two_members_of_one_name_are_refused(put, names):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z, pytest.warns(UserWarning) if names[0] == names[1] else _nothing():
        for name in names:
            z.writestr(name, name)
    refused(put(out.getvalue()), "twice")


def _nothing():
    import contextlib
    return contextlib.nullcontext()


def test_a_file_that_is_also_a_folder_is_refused(put):
    refused(put(zipped({"x/a.tif": b"1", "x/a.tif/b.tif": b"2"})), "both a file and a folder")


def test_bombs_are_refused_by_the_directory(put):
    bomb = put(zipped({"a.tif": bytes(3_000_000)}))
    assert bomb.stat().st_size < 5000
    refused(bomb, "would unpack from")
    refused(put(zipped({f"{i}.tif": NOISE for i in range(5)})), "5 members", Limits(members=4))
    refused(put(zipped({"a.tif": NOISE})), "at most 4999", Limits(member=4999))
    refused(put(zipped({f"{i}.tif": NOISE for i in range(5)})), "accepted", Limits(total=24_999))


def test_a_bomb_that_lies_about_its_size_gives_no_more_than_it_said(put, tmp_path):
    data = bytearray(zipped({"a.tif": bytes(3_000_000)}))
    honest = (3_000_000).to_bytes(4, "little")
    assert data.count(honest) == 2  # local header and central directory
    lying = bytes(data).replace(honest, (4000).to_bytes(4, "little"))
    with pytest.raises(MorphobenchError, match="no sound zip"):
        unpack(put(lying), tmp_path / "out")
    assert sum(p.stat().st_size for p in (tmp_path / "out").rglob("*") if p.is_file()) <= 4000


def test_encrypted_members_are_refused(put):
    data = bytearray(zipped({"a.tif": NOISE}))
    central = data.rindex(b"PK\x01\x02")
    data[central + 8] |= 1
    refused(put(bytes(data)), "encrypted")


def test_no_images_no_archive(put):
    refused(put(zipped({"Thumbs.db": b"x"})), "holds no image")
    refused(put(zipped({})), "holds no image")
    refused(put(b"<html>Please log in</html>"), "no sound zip")
    refused(put(b""), "no sound zip")


def test_a_flipped_bit_is_found_and_the_member_named(put, tmp_path):
    data = bytearray(zipped({"a.tif": NOISE, "b.tif": NOISE}, zipfile.ZIP_STORED))
    data[data.rindex(NOISE) + 100] ^= 4
    with pytest.raises(MorphobenchError, match=r"b\.tif.*CRC"):
        unpack(put(bytes(data)), tmp_path / "out")


def test_a_truncated_archive_is_refused(put):
    whole = zipped({"a.tif": NOISE, "b.tif": NOISE})
    for keep in (10, len(whole) // 2, len(whole) - 1):
        refused(put(whole[:keep]), "no sound zip")


def test_a_full_disk_is_no_fault_of_the_archive(put, tmp_path, monkeypatch):
    monkeypatch.setattr(room.shutil, "disk_usage", lambda p: type("U", (), {"free": 4999})())
    with pytest.raises(NoRoomError, match="free"):
        unpack(put(zipped({"a.tif": NOISE})), tmp_path / "out")


SOUND = zipped({"w/a.tif": NOISE[:400], "w/b.tif": bytes(400), "w/Thumbs.db": b"x"})


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(SOUND) - 1), st.integers(1, 255)), min_size=1, max_size=4))
def test_damaged_bytes_give_an_error_or_sound_files(tmp_path_factory, flips):
    data = bytearray(SOUND)
    for at, bits in flips:
        data[at] ^= bits
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "a.zip").write_bytes(data)
    try:
        got = unpack(folder / "a.zip", folder / "out")
    except MorphobenchError:
        pass
    else:
        for name, (size, sha) in got.files.items():
            path = folder / "out" / name
            assert path.resolve().is_relative_to((folder / "out").resolve())
            assert (path.stat().st_size, sha256_file(path)) == (size, sha)
    assert {p.name for p in folder.iterdir()} <= {"a.zip", "out"}


PIECES = st.sampled_from(["a.tif", "A.TIF", "b", "..", ".", "", "/", "\\", "C:", "x.bmp", "__MACOSX", "é.png", "\x00"])


@given(st.lists(st.lists(PIECES, min_size=1, max_size=4).map("/".join), min_size=1, max_size=5))
def test_every_planned_path_stays_inside_and_is_alone(names):
    members = []
    for name in names:
        info = zipfile.ZipInfo("x")
        info.filename = info.orig_filename = name
        members.append(info)
    try:
        chosen, skipped = plan(members, 100, LIMITS, "a.zip")
    except MorphobenchError:
        return
    paths = [p for _, p in chosen]
    assert all(not p.is_absolute() and ".." not in p.parts and p != PurePosixPath(".") for p in paths)
    assert len({str(p).casefold() for p in paths}) == len(paths)
    assert len(paths) + skipped == sum(not m.is_dir() for m in members)
