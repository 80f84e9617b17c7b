"""A fetch on disk: archives and tables that are wrong, folders that are there already, kills, and the lock file."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import threading
import time
import zipfile

import pytest
from fake_server import (
    FIRST,
    PLATES,
    QUICK,
    SECOND,
    TABLE,
    collection_files,
    flipped,
    image,
    image_table,
    lay_out,
    nothing_final,
    other_content,
    plate_archive,
    whole,
)
from hostile_server import serving

from benchmark.assays.fetching import archives
from benchmark.assays.fetching.fetch import fetch_assay
from benchmark.assays.fetching.lock import lock_faults, read_lock
from benchmark.base.errors import FaultsError, MorphobenchError
from benchmark.base.files import sha256_file


@pytest.mark.parametrize("spoil", [lambda b: b"<html>Please log in</html>", flipped, lambda b: b"",
                                   lambda b: plate_archive(PLATES[2])], ids=["page", "bit", "empty", "other plate"])
def test_wrong_and_corrupt_archives_are_fetched_twice_then_refused(fetch, server, tmp_path, spoil):
    sound = server.files[FIRST]
    server.files[FIRST] = spoil(sound)
    with pytest.raises(MorphobenchError, match=r"fetched twice") as caught:
        fetch()
    assert server.url + FIRST[1:] in str(caught.value)
    assert len(server.gets(FIRST)) == 2
    nothing_final(tmp_path / "bbbc021", PLATES[0])
    assert not (tmp_path / "bbbc021" / "archives").exists()  # thrown away
    server.files[FIRST] = sound
    fetch()
    whole(tmp_path / "bbbc021")


def test_an_unsafe_archive_writes_nothing(fetch, server, tmp_path):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        z.writestr(image(PLATES[0], 1, 1)[0], b"x")
        z.writestr("../../../evil.tif", b"x")
    server.files[FIRST] = out.getvalue()
    with pytest.raises(MorphobenchError, match="lead out of the folder"):
        fetch(plates=PLATES[:1])
    nothing_final(tmp_path / "bbbc021", PLATES[0])
    assert not list(tmp_path.parent.rglob("evil.tif"))


def test_missing_images_are_said_but_do_not_hinder(fetch, server, tmp_path, capsys):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        z.writestr(*image(PLATES[0], 1, 1))
    server.files[FIRST] = out.getvalue()
    fetch(plates=PLATES[:1])
    assert "lacks 5 of 6 images" in capsys.readouterr().err
    assert len(list((tmp_path / "bbbc021" / PLATES[0]).iterdir())) == 1


@pytest.mark.parametrize(("body", "match"), [
    (b"<!DOCTYPE html><html></html>", "no table"),
    (b"", "no table"),
    (b"a,b\n1,2\n", "lacks the column"),
    (image_table()[:-40], "cells where the header has|is not CSV"),
    (image_table().replace(b'"Week2_24121",', b'"../../etc",'), "not a plate's name"),
])
def test_a_table_that_is_none_is_refused(fetch, server, tmp_path, body, match):
    sound, server.files[TABLE] = server.files[TABLE], body
    with pytest.raises(MorphobenchError, match=match):
        fetch()
    assert not server.gets(".zip")
    # Neither kept nor locked, so that the next fetch finishes.
    assert not (tmp_path / "bbbc021" / "BBBC021_v1_image.csv").exists()
    server.files[TABLE] = sound
    fetch()
    whole(tmp_path / "bbbc021")


def test_lost_and_cut_files_bring_back_only_their_archive(fetch, server, tmp_path):
    fetch()
    root, lock = tmp_path / "bbbc021", (tmp_path / "bbbc021" / "lock.json").read_bytes()
    gone, cut = (root / PLATES[0] / image(PLATES[0], 1, c)[0] for c in (1, 2))
    gone.unlink()
    cut.write_bytes(b"")
    (root / PLATES[0] / "my notes.md").write_text("mine")
    (root / "BBBC021_v1_moa.csv").unlink()
    server.asked.clear()
    fetch()
    assert {a[1] for a in server.gets()} == {FIRST, "/BBBC021/BBBC021_v1_moa.csv"}
    assert (root / PLATES[0] / "my notes.md").read_text() == "mine"
    (root / PLATES[0] / "my notes.md").unlink()
    whole(root)
    assert (root / "lock.json").read_bytes() == lock


@pytest.mark.parametrize("resized", [True, False])
def test_an_archive_that_changed_on_the_server_is_refused(fetch, server, tmp_path, resized):
    fetch()
    root = tmp_path / "bbbc021"
    lock = (root / "lock.json").read_bytes()
    path = root / PLATES[0] / image(PLATES[0], 1, 1)[0]
    path.unlink()
    server.files[FIRST] = other_content() if resized else flipped(server.files[FIRST])
    with pytest.raises(MorphobenchError, match="another size" if resized else "another SHA-256") as caught:
        fetch()
    assert "delete the lock file" in str(caught.value) and FIRST in str(caught.value)
    assert not path.exists() and (root / "lock.json").read_bytes() == lock
    # what the message says to do does it
    (root / "lock.json").unlink()
    for left in (root / PLATES[0]).iterdir():
        left.unlink()
    server.files[FIRST] = other_content()
    fetch()
    assert path.read_bytes() == b"other"
    assert lock_faults(root / "lock.json", root, {f"{PLATES[0]}/{path.name}": sha256_file(path)}) == []


def test_a_table_that_changed_on_the_server_is_refused(fetch, server, tmp_path):
    fetch()
    (tmp_path / "bbbc021" / "BBBC021_v1_moa.csv").unlink()
    server.files["/BBBC021/BBBC021_v1_moa.csv"] = b"compound,concentration,moa\n"
    with pytest.raises(MorphobenchError, match="another size"):
        fetch()
    assert not (tmp_path / "bbbc021" / "BBBC021_v1_moa.csv").exists()


def test_images_that_lie_there_already_are_taken_and_locked(fetch, server, tmp_path):
    root = tmp_path / "bbbc021"
    lay_out(root, PLATES[0])
    (root / "BBBC021_v1_image.csv").write_bytes(server.files[TABLE])
    fetch()
    whole(root)
    assert {a[1] for a in server.gets()} == {SECOND, *(f"/BBBC021/BBBC021_v1_{t}.csv" for t in ("moa", "compound"))}
    entry = read_lock(root / "lock.json").archives["BBBC021_v1_images_Week1_22123.zip"]
    assert (entry.url, entry.size, entry.sha256) == ("", None, "")
    (root / PLATES[0] / image(PLATES[0], 1, 1)[0]).unlink()  # and mended from the archive, which has the same files
    fetch()
    whole(root)
    assert read_lock(root / "lock.json").archives["BBBC021_v1_images_Week1_22123.zip"].size == len(server.files[FIRST])


def test_images_in_the_layout_of_the_table_are_not_fetched_a_second_time(fetch, server, tmp_path):
    root = tmp_path / "bbbc021"
    lay_out(root / "Week1", PLATES[0])
    with pytest.raises(FaultsError, match=r"Week1/Week1_22123: is there already.*Move it to .*/Week1_22123 to have"):
        fetch()
    assert not server.gets(".zip")
    (root / "Week1" / PLATES[0]).rename(root / PLATES[0])
    (root / "Week1").rmdir()
    fetch()
    whole(root)
    assert FIRST not in {a[1] for a in server.gets()}


def test_an_archive_of_one_plate_that_holds_another_is_refused(fetch, server, tmp_path):
    zips = "/BBBC013/BBBC013_v1_images_bmp.zip"
    sound, server.files[zips] = server.files[zips], plate_archive(PLATES[0])
    with pytest.raises(MorphobenchError, match="holds 6 images, and bbbc013 has 192; it was fetched twice"):
        fetch("bbbc013", plates=())
    root = tmp_path / "bbbc013"
    assert not (root / "BBBC013_v1_images_bmp").exists()
    assert "BBBC013_v1_images_bmp.zip" not in read_lock(root / "lock.json").archives
    server.files[zips] = sound
    fetch("bbbc013", plates=())
    assert len(list((root / "BBBC013_v1_images_bmp").iterdir())) == 192


def test_images_that_lie_there_in_part_are_left_alone(fetch, server, tmp_path):
    root = tmp_path / "bbbc021"
    lay_out(root, PLATES[0])
    lost = root / PLATES[0] / image(PLATES[0], 2, 4)[0]
    lost.unlink()
    with pytest.raises(FaultsError, match=r"lacks 1 of 6 images.*Move it away"):
        fetch()
    assert not server.gets(".zip") and not lost.exists()


def test_an_archive_with_other_images_than_were_found_is_refused(fetch, server, tmp_path):
    root = tmp_path / "bbbc021"
    lay_out(root, PLATES[0])
    fetch(plates=PLATES[:1])
    path = root / PLATES[0] / image(PLATES[0], 1, 1)[0]
    path.unlink()
    server.files[FIRST] = other_content()
    with pytest.raises(MorphobenchError, match="holds other files"):
        fetch(plates=PLATES[:1])
    assert not path.exists()
    name, data = image(PLATES[0], 1, 2)
    assert (root / PLATES[0] / name).read_bytes() == data


def test_archives_are_fetched_at_once(fetch, server, tmp_path):
    server.gather = threading.Barrier(3)  # each waits for the two others: one at a time would break it
    fetch(plates=(), jobs=3)
    whole(tmp_path / "bbbc021", PLATES)
    assert server.most_together >= 3


def test_archives_can_be_kept_and_serve_again(fetch, server, tmp_path):
    fetch(plates=PLATES[:1], keep_archives=True)
    root = tmp_path / "bbbc021"
    kept = root / "archives" / FIRST.rsplit("/", 1)[1]
    assert kept.read_bytes() == server.files[FIRST]
    (root / PLATES[0] / image(PLATES[0], 1, 1)[0]).unlink()
    server.asked.clear()
    fetch(plates=PLATES[:1], keep_archives=True)
    assert not server.gets() and (root / PLATES[0] / image(PLATES[0], 1, 1)[0]).is_file()
    kept.write_bytes(flipped(kept.read_bytes()))  # a kept archive that rotted is fetched again
    (root / PLATES[0] / image(PLATES[0], 1, 1)[0]).unlink()
    fetch(plates=PLATES[:1])
    whole(root, PLATES[:1])


def test_too_little_disk_is_said_before_anything_is_fetched(fetch, server, tmp_path, monkeypatch):
    size = sum(len(server.files[f]) for f in (FIRST, SECOND))
    free = [int(4 * size) - 1]
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda p: type("U", (), {"free": free[0]})())
    with pytest.raises(MorphobenchError, match=r"2 archive\(s\) of .* kB need about .* kB .* are free"):
        fetch()
    assert not server.gets(".zip")
    free[0] += 1
    fetch()
    whole(tmp_path / "bbbc021")


def test_a_disk_that_fills_up_stops_all_and_keeps_what_has_come(fetch, server, tmp_path, monkeypatch):
    real = archives._land
    monkeypatch.setattr(archives, "_land", lambda *a: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(MorphobenchError, match="No space left"):
        fetch(jobs=1)
    assert len(server.gets(".zip")) == 1  # no other was begun
    monkeypatch.setattr(archives, "_land", real)
    fetch()
    whole(tmp_path / "bbbc021")
    assert len(server.gets(".zip")) == 2  # the archive that had come was not asked for again


def test_a_server_that_cannot_be_reached_is_said_once(tmp_path):
    with serving(collection_files()) as server:
        url = server.url
        fetch_assay("bbbc021", tmp_path, plates=PLATES[:1], base_url=url, patience=QUICK)
    with pytest.raises(MorphobenchError, match=r"cannot be reached \(.*refused") as caught:
        fetch_assay("bbbc021", tmp_path, plates=PLATES, base_url=url, patience=QUICK)
    assert not isinstance(caught.value, FaultsError)
    whole(tmp_path / "bbbc021", PLATES[:1])


@pytest.mark.parametrize("step", ["retrieve", "unpack", "_entry", "_land"])
def test_an_interrupt_at_any_step_leaves_nothing_final(fetch, server, tmp_path, monkeypatch, step):
    real = getattr(archives, step)
    after = step != "_land"

    def interrupted(*args, **more):
        if after:
            real(*args, **more)
        raise KeyboardInterrupt

    monkeypatch.setattr(archives, step, interrupted)
    if step == "retrieve":
        monkeypatch.setattr("benchmark.assays.fetching.fetch.retrieve", real)
    with pytest.raises(KeyboardInterrupt):
        fetch(plates=PLATES[:1])
    root = tmp_path / "bbbc021"
    assert not (root / PLATES[0]).exists() and not list(root.glob(".unpacking-*"))
    monkeypatch.undo()
    fetch(plates=PLATES[:1])
    whole(root, PLATES[:1])
    assert len(server.gets(FIRST)) == 1


CHILD = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
from pathlib import Path
from benchmark.assays.fetching.fetch import fetch_assay
fetch_assay("bbbc021", Path(sys.argv[1]), plates=["Week1_22123", "Week2_24121"], base_url=sys.argv[2], jobs=1)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_fetch_keeps_what_is_finished_and_resumes_the_rest(server, tmp_path, how):
    server.tricks[SECOND] = ["stall"]
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path), server.url], stderr=subprocess.DEVNULL)
    root = tmp_path / "bbbc021"
    part = root / "archives" / (SECOND.rsplit("/", 1)[1] + ".part")
    try:
        until = time.monotonic() + 60
        while not (part.exists() and server.gets(SECOND)) and time.monotonic() < until:
            time.sleep(0.02)
        with pytest.raises(MorphobenchError, match="another fetch is at work"):
            fetch_assay("bbbc021", tmp_path, base_url=server.url, patience=QUICK)
        (root / ".unpacking-left").mkdir()
        (root / "archives" / "tmpleft").write_bytes(b"x")
        (root / "archives" / ".a.zip.part.json.0a1b2c3d.tmp.json").write_bytes(b"{")
        child.send_signal(how)
        server.release.set()  # the read that waits ends, as a timeout would end it
        assert child.wait(30) != 0
    finally:
        child.kill()
        child.wait()
    assert (root / PLATES[0]).is_dir() and not (root / PLATES[1]).exists()
    fetch_assay("bbbc021", tmp_path, plates=PLATES[:2], base_url=server.url, patience=QUICK)
    whole(root)
    assert len(server.gets(FIRST)) == 1


def test_the_environment_names_the_server(server, tmp_path, monkeypatch):
    monkeypatch.setenv("MORPHOBENCH_BBBC_URL", server.url.rstrip("/"))
    fetch_assay("bbbc021", tmp_path, plates=PLATES[:1], patience=QUICK)
    whole(tmp_path / "bbbc021", PLATES[:1])
