"""The lock file: what it knows, what it refuses, and a hash that does not depend on order or server."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from benchmark.assays.fetching.lock import (
    LockBook,
    LockedArchive,
    LockedFile,
    lock_faults,
    lock_hash,
    read_lock,
    unsound_files,
)
from benchmark.base.errors import MorphobenchError
from benchmark.base.files import sha256_file


def entry(root: Path, *names: str, url: str = "http://x/y.zip") -> LockedArchive:
    """Write files of some bytes; lock them."""
    files = {}
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode() * 3)
        files[name] = LockedFile(size=path.stat().st_size, sha256=sha256_file(path))
    return LockedArchive(url=url, size=5, sha256="a" * 64, files=files)


def test_what_is_recorded_is_read_back(tmp_path):
    book = LockBook(tmp_path / "lock.json", "bbbc021")
    one = entry(tmp_path, "P1/a.tif", "P1/b.tif")
    book.record("p1.zip", one)
    assert LockBook(tmp_path / "lock.json", "bbbc021").get("p1.zip") == one
    assert book.get("p2.zip") is None
    assert set(read_lock(tmp_path / "lock.json").files) == {"P1/a.tif", "P1/b.tif"}
    with pytest.raises(MorphobenchError, match="of bbbc021, not of bbbc014"):
        LockBook(tmp_path / "lock.json", "bbbc014")


def test_threads_do_not_lose_each_others_archives(tmp_path):
    book = LockBook(tmp_path / "lock.json", "bbbc021")
    entries = {f"p{i}.zip": entry(tmp_path, f"P{i}/a.tif") for i in range(16)}
    threads = [threading.Thread(target=book.record, args=pair) for pair in entries.items()]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert read_lock(tmp_path / "lock.json").archives == entries
    assert [p.name for p in tmp_path.glob("*lock*")] == ["lock.json"]


def test_faults_name_what_changed_and_what_is_foreign(tmp_path):
    LockBook(tmp_path / "lock.json", "bbbc014").record("i.zip", entry(tmp_path, "images/a.bmp", "images/b.bmp"))
    lock = tmp_path / "lock.json"

    def hashes(root: Path, *names: str) -> dict[str, str]:
        return {n: sha256_file(root / n) for n in names}

    assert lock_faults(lock, tmp_path, hashes(tmp_path, "images/a.bmp", "images/b.bmp")) == []
    assert lock_faults(lock, tmp_path, hashes(tmp_path, "images/a.bmp")) == []  # a study of a part
    inner = tmp_path / "images"
    assert lock_faults(lock, inner, hashes(inner, "a.bmp", "b.bmp")) == []
    (inner / "b.bmp").write_bytes(b"B" * (inner / "b.bmp").stat().st_size)
    (inner / "new.bmp").write_bytes(b"x")
    changed, foreign = lock_faults(lock, inner, hashes(inner, "a.bmp", "b.bmp", "new.bmp"))
    assert changed.where == "b.bmp" and "changed" in changed.what
    assert foreign.where == "new.bmp" and "not in lock.json" in foreign.what
    elsewhere = lock_faults(lock, tmp_path.parent, {"a.bmp": "0" * 64})
    assert len(elsewhere) == 1


def test_a_table_beside_the_lock_that_changed_is_named(tmp_path):
    book = LockBook(tmp_path / "lock.json", "bbbc021")
    book.record("moa.csv", entry(tmp_path, "moa.csv"))
    book.record("p.zip", entry(tmp_path, "P/a.tif"))
    image = {"P/a.tif": sha256_file(tmp_path / "P/a.tif")}
    assert lock_faults(tmp_path / "lock.json", tmp_path, image) == []
    (tmp_path / "moa.csv").write_bytes(b"X" * (tmp_path / "moa.csv").stat().st_size)
    (fault,) = lock_faults(tmp_path / "lock.json", tmp_path, image)
    assert fault.where == "moa.csv" and "changed since it was fetched" in fault.what


def test_a_root_that_is_a_link_into_the_folder_is_understood(tmp_path):
    LockBook(tmp_path / "d" / "lock.json", "bbbc014").record("i.zip", entry(tmp_path / "d", "images/a.bmp"))
    (tmp_path / "link").symlink_to(tmp_path / "d" / "images")
    sha = sha256_file(tmp_path / "d/images/a.bmp")
    assert lock_faults(tmp_path / "d/lock.json", tmp_path / "link", {"a.bmp": sha}) == []


def test_the_look_at_the_disk_sees_missing_and_resized_files(tmp_path):
    one = entry(tmp_path, "P/a.tif", "P/b.tif", "P/c.tif")
    assert unsound_files(tmp_path, one) == []
    (tmp_path / "P/a.tif").unlink()
    (tmp_path / "P/c.tif").write_bytes(b"")
    assert unsound_files(tmp_path, one) == ["P/a.tif", "P/c.tif"]


def test_the_look_does_not_leave_the_folder(tmp_path):
    (tmp_path / "out.tif").write_bytes(b"x")
    odd = LockedArchive(files={"../out.tif": LockedFile(size=1, sha256="a" * 64)})
    with pytest.raises(MorphobenchError, match="out of the"):
        unsound_files(tmp_path / "in", odd)


def test_the_hash_is_of_the_content(tmp_path):
    def book(folder: str, archives: dict[str, LockedArchive]) -> str:
        path = tmp_path / folder / "lock.json"
        for name, archive in archives.items():
            LockBook(path, "bbbc021").record(name, archive)
        return lock_hash(path)

    a, b = entry(tmp_path, "A/1.tif", "A/2.tif"), entry(tmp_path, "B/1.tif")
    first = book("one", {"a.zip": a, "b.zip": b})
    turned = a.model_copy(update={"files": dict(reversed(list(a.files.items()))), "url": "http://mirror/y.zip"})
    assert book("two", {"b.zip": b, "a.zip": turned}) == first and len(first) == 64
    assert book("three", {"a.zip": a}) != first
    assert book("four", {"a.zip": a, "b.zip": b.model_copy(update={"sha256": "b" * 64})}) != first
    assert book("five", {"a.zip": a, "b.zip": b.model_copy(update={"size": 6})}) != first


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"version": 2, "collection": "bbbc021"}',
                                  '{"version": 1, "collection": "x", "archives": {"a": {"files": {"f": {}}}}}'])
def test_what_is_no_lock_file_is_said(tmp_path, text):
    (tmp_path / "lock.json").write_text(text)
    for use in (read_lock, lock_hash, lambda p: LockBook(p, "bbbc021"), lambda p: lock_faults(p, tmp_path, {})):
        with pytest.raises(MorphobenchError, match=r"lock\.json: is no lock file"):
            use(tmp_path / "lock.json")


def test_a_missing_lock_file_is_said(tmp_path):
    with pytest.raises(MorphobenchError, match="is missing"):
        lock_hash(tmp_path / "lock.json")


def test_the_lock_file_can_be_read_by_eye(tmp_path):
    LockBook(tmp_path / "lock.json", "bbbc021").record("a.zip", entry(tmp_path, "A/1.tif"))
    plain = json.loads((tmp_path / "lock.json").read_text())
    assert plain["archives"]["a.zip"]["files"]["A/1.tif"]["size"] == 21
    assert plain["archives"]["a.zip"]["url"] == "http://x/y.zip"
