"""Fetching from a server that cuts, stalls and lies; a second try finishes, and nothing half-written is ever seen."""

from __future__ import annotations

import csv
import gzip
import io
import json
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hostile_server import serving
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.assays import archives, collections
from benchmark.assays.collections import BASE_URL, archives_of, base_address, find_collection
from benchmark.assays.download import Patience, Resume
from benchmark.assays.fetch import fetch_assay
from benchmark.assays.lock import lock_faults, read_lock
from benchmark.errors import FaultsError, MorphobenchError
from benchmark.files import sha256_file

QUICK = Patience(connect=10, read=10, tries=3, pause=0.01, chunk=512)
HASTY = Patience(connect=10, read=0.4, tries=3, pause=0.01, chunk=512)
PLATES = ("Week1_22123", "Week2_24121", "Week10_40111")
HEADER = ["TableNumber", "ImageNumber", "Image_FileName_DAPI", "Image_PathName_DAPI", "Image_FileName_Tubulin",
          "Image_PathName_Tubulin", "Image_FileName_Actin", "Image_PathName_Actin", "Image_Metadata_Plate_DAPI",
          "Image_Metadata_Well_DAPI", "Replicate", "Image_Metadata_Compound", "Image_Metadata_Concentration"]
ZIP = "/BBBC021/BBBC021_v1_images_{}.zip"
FIRST, SECOND, TENTH = map(ZIP.format, PLATES)
TABLE = "/BBBC021/BBBC021_v1_image.csv"


def image(plate: str, site: int, channel: int) -> tuple[str, bytes]:
    seed = [int(plate.split("_")[1]), site, channel]
    return f"{plate}_B02_s{site}_w{channel}.tif", np.random.default_rng(seed).bytes(4000 + site)


def image_table(plates=PLATES) -> bytes:
    out = io.StringIO()
    table = csv.writer(out, quoting=csv.QUOTE_NONNUMERIC)
    table.writerow(HEADER)
    for plate in plates:
        for site in (1, 2):
            path = f"{plate.split('_')[0]}/{plate}"
            names = [x for c in (1, 2, 4) for x in (image(plate, site, c)[0], path)]
            table.writerow([1, site, *names, plate, "B02", 1, "DMSO", 0.0])
    return out.getvalue().encode()


def plate_archive(plate: str, folder: bool = True) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as z:
        for site in (1, 2):
            for channel in (1, 2, 4):
                name, data = image(plate, site, channel)
                z.writestr(f"{plate}/{name}" if folder else name, data)
        z.writestr("Thumbs.db", b"x")
    return out.getvalue()


def wells(channel: str) -> dict[str, bytes]:
    return {f"{channel}-{12 * i + j:02d}-{'ABCDEFGH'[i]}-{j:02d}.BMP": f"{channel}{i}{j}".encode() * 9
            for i in range(8) for j in range(1, 13)}


def collection_files() -> dict[str, bytes]:
    files = {TABLE: image_table(), "/BBBC021/BBBC021_v1_moa.csv": b'"compound","concentration","moa"\n"a",1.0,"b"\n',
             "/BBBC021/BBBC021_v1_compound.csv": b'"compound","smiles"\n"DMSO",""\n',
             "/BBBC013/BBBC013_v1_platemap_all.txt": b"platemap\n1\n2\n"}
    files |= {ZIP.format(p): plate_archive(p, folder=p != "Week2_24121") for p in PLATES}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        for name, data in {**wells("Channel1"), **wells("Channel2")}.items():
            z.writestr(name, data)
    return files | {"/BBBC013/BBBC013_v1_images_bmp.zip": out.getvalue()}


@pytest.fixture
def server():
    with serving(collection_files()) as hostile:
        yield hostile


@pytest.fixture
def fetch(server, tmp_path):
    """Fetch from the hostile server; two plates unless told otherwise."""
    def go(name="bbbc021", plates=PLATES[:2], patience=QUICK, **more):
        return fetch_assay(name, tmp_path, plates=plates, base_url=server.url, patience=patience, **more)
    return go


def whole(root: Path, plates=PLATES[:2]) -> None:
    """Everything of these plates is there, byte for byte, locked, and nothing else."""
    expected = {f"{p}/{n}": d for p in plates for s in (1, 2) for c in (1, 2, 4) for n, d in [image(p, s, c)]}
    tables = {f"BBBC021_v1_{t}.csv" for t in ("image", "moa", "compound")}
    there = {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()}
    assert there == {*expected, *tables, "lock.json", ".fetching"}
    assert {p.name for p in root.iterdir() if p.is_dir()} == set(plates)
    for name, data in expected.items():
        assert (root / name).read_bytes() == data
    hashes = {name: sha256_file(root / name) for name in expected}
    assert lock_faults(root / "lock.json", root, hashes) == []
    assert {n for n in read_lock(root / "lock.json").archives if n.endswith(".zip")} \
        == {f"BBBC021_v1_images_{p}.zip" for p in plates}


def nothing_final(root: Path, plate: str) -> None:
    """No trace of a plate under its final name, nor in the lock file."""
    assert not (root / plate).exists()
    assert f"BBBC021_v1_images_{plate}.zip" not in read_lock(root / "lock.json").archives
    assert not list(root.glob(".unpacking-*"))


def test_a_sound_server(fetch, server, tmp_path, capsys):
    lock = fetch(plates=())
    assert lock == tmp_path / "bbbc021" / "lock.json"
    whole(tmp_path / "bbbc021", PLATES)
    entry = read_lock(lock).archives["BBBC021_v1_images_Week1_22123.zip"]
    assert entry.size == len(server.files[FIRST]) and entry.skipped == 1
    assert entry.url == server.url + FIRST[1:]
    before, server.asked[:] = lock.read_bytes(), []
    assert fetch(plates=()) == lock
    assert server.asked == [] and lock.read_bytes() == before  # what is finished asks the server nothing
    assert capsys.readouterr().err.count("\n") == 1  # quiet where there is no terminal


def test_chosen_plates_then_more(fetch, server, tmp_path):
    fetch(plates=["Week2_24121"])
    whole(tmp_path / "bbbc021", ["Week2_24121"])
    fetch(plates=["Week1_22123"])
    whole(tmp_path / "bbbc021")
    assert len(server.gets(".zip")) == 2
    with pytest.raises(FaultsError, match=r"Week1_22132.*\n?.*Did you mean Week1_22123"):
        fetch(plates=["Week1_22132", "../../etc"])
    with pytest.raises(MorphobenchError, match="one plate in one archive"):
        fetch("bbbc013", plates=["x"])
    with pytest.raises(MorphobenchError, match="Known: bbbc021, bbbc014, bbbc013"):
        fetch("bbbc999")


def test_one_archive_collections(fetch, tmp_path):
    lock = fetch("BBBC013", plates=())
    folder = tmp_path / "bbbc013" / "BBBC013_v1_images_bmp"
    assert len(list(folder.glob("*.BMP"))) == 192
    assert (folder / "Channel2-95-H-11.BMP").read_bytes() == wells("Channel2")["Channel2-95-H-11.BMP"]
    assert set(read_lock(lock).archives) == {"BBBC013_v1_platemap_all.txt", "BBBC013_v1_images_bmp.zip"}


@pytest.mark.parametrize("trick", ["cut", "stall"])
def test_a_transfer_that_breaks_off_goes_on_where_it_stopped(fetch, server, tmp_path, trick):
    server.tricks[FIRST] = [trick, trick]
    fetch(plates=PLATES[:1], patience=HASTY if trick == "stall" else QUICK)
    whole(tmp_path / "bbbc021", PLATES[:1])
    first, second, third = server.gets(FIRST)
    assert first[2:] == ("", 200) and second[3] == third[3] == 206
    starts = [int(a[2].removeprefix("bytes=").removesuffix("-")) for a in (second, third)]
    assert 0 < starts[0] < starts[1] < len(server.files[FIRST])


@pytest.mark.parametrize("trick", ["cut", "stall", "500", "gone", "long", "short", "gzip"])
def test_when_tries_run_out_the_next_fetch_finishes(fetch, server, tmp_path, trick):
    server.tricks[FIRST] = [trick] * 3
    with pytest.raises(MorphobenchError) as caught:
        fetch(plates=PLATES[:1], patience=HASTY if trick == "stall" else QUICK)
    assert server.url in str(caught.value) and "run the same command again" in str(caught.value).lower()
    nothing_final(tmp_path / "bbbc021", PLATES[0])
    server.asked.clear()
    fetch(plates=PLATES[:1])
    whole(tmp_path / "bbbc021", PLATES[:1])
    if trick in ("cut", "stall"):
        assert [a[3] for a in server.gets(FIRST)] == [206]


@pytest.mark.parametrize("trick", ["500", "gone", "long", "short", "elsewhere", "anew", "gzip"])
def test_one_slip_is_mended_within_the_fetch(fetch, server, tmp_path, trick):
    server.tricks[FIRST] = ["cut", trick]
    fetch(plates=PLATES[:1])
    whole(tmp_path / "bbbc021", PLATES[:1])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["cut", "500", "gone", "long", "short", "anew", "elsewhere", "gzip"]), max_size=6))
def test_whatever_the_server_does_the_file_is_whole_or_absent(tmp_path_factory, tricks):
    body, folder = plate_archive(PLATES[0]), tmp_path_factory.mktemp("resume")
    with serving({"/x.zip": body}) as server:
        server.tricks["/x.zip"] = list(tricks)
        for _ in range(3):
            resume = Resume(folder / "x.part", QUICK, threading.Event(), lambda n: None, size=len(body))
            try:
                resume(server.url + "x.zip", str(folder / "x.zip"), None)
                break
            except MorphobenchError:
                assert not (folder / "x.zip").exists()
        assert (folder / "x.zip").read_bytes() == body
        assert {p.name for p in folder.iterdir()} == {"x.zip"}


def test_a_line_that_breaks_often_but_gains_is_borne_with(fetch, server, tmp_path, monkeypatch):
    server.tricks[FIRST] = ["cut"] * 5
    monkeypatch.setattr("benchmark.assays.download.GAIN", 300)
    fetch(plates=PLATES[:1])
    whole(tmp_path / "bbbc021", PLATES[:1])
    assert len(server.gets(FIRST)) == 6 > QUICK.tries


def test_more_bytes_than_believed_are_not_taken(server, tmp_path):
    gained = []
    resume = Resume(tmp_path / "x.part", QUICK, threading.Event(), gained.append, most=2000)
    with pytest.raises(MorphobenchError, match="more than 2000 bytes"):
        resume(server.url + FIRST[1:], str(tmp_path / "x.zip"), None)
    assert sum(gained) <= 2000 + QUICK.chunk and not (tmp_path / "x.zip").exists()


def test_bytes_are_counted_once_through_cuts_and_new_starts(server, tmp_path):
    gained = []
    server.tricks[FIRST] = ["cut", "anew"]
    Resume(tmp_path / "x.part", QUICK, threading.Event(), gained.append)(
        server.url + FIRST[1:], str(tmp_path / "x.zip"), None)
    assert sum(gained) == len(server.files[FIRST]) and min(gained) < 0


def test_on_a_terminal_there_is_a_bar(fetch, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    fetch(plates=())
    assert "3 of 3 archives" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_said(server, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(MorphobenchError, match=r"cannot be written \((Not a directory|File exists)"):
        fetch_assay("bbbc021", tmp_path / "file", base_url=server.url, patience=QUICK)


def test_a_server_that_lies_about_length_all_the_time(fetch, server, tmp_path):
    server.head_lies[FIRST] = len(server.files[FIRST]) - 10
    with pytest.raises(MorphobenchError, match=r"promised \d+ bytes and sent"):
        fetch()
    nothing_final(tmp_path / "bbbc021", PLATES[0])
    assert (tmp_path / "bbbc021" / PLATES[1]).is_dir()  # the other plate was not held up
    server.head_lies.clear()
    fetch()
    whole(tmp_path / "bbbc021")


def test_an_archive_cut_by_its_own_content_length_everywhere_is_found_by_unpacking(fetch, server, tmp_path):
    sound, server.files[FIRST] = server.files[FIRST], server.files[FIRST][:-200]
    with pytest.raises(MorphobenchError, match=r"no sound zip.*fetched twice"):
        fetch(plates=PLATES[:1])
    server.files[FIRST] = sound
    fetch(plates=PLATES[:1])
    whole(tmp_path / "bbbc021", PLATES[:1])


def test_without_range_or_validators_it_starts_anew(fetch, server, tmp_path):
    server.validators = False
    server.tricks[FIRST] = ["cut"]
    fetch(plates=PLATES[:1])
    whole(tmp_path / "bbbc021", PLATES[:1])
    assert [a[2:] for a in server.gets(FIRST)] == [("", 200)] * 2


def test_the_rest_of_another_file_is_never_joined_on(fetch, server, tmp_path):
    server.tricks[FIRST] = ["cut", "gone", "gone"]
    with pytest.raises(MorphobenchError):
        fetch(plates=PLATES[:1])
    part = tmp_path / "bbbc021" / "archives" / (FIRST.rsplit("/", 1)[1] + ".part")
    assert part.stat().st_size > 0
    server.files[FIRST] = plate_archive(PLATES[0], folder=False)  # another ETag
    fetch(plates=PLATES[:1])
    whole(tmp_path / "bbbc021", PLATES[:1])
    assert server.gets(FIRST)[-1][3] == 200


def test_a_whole_part_needs_no_request(fetch, server, tmp_path):
    where = tmp_path / "bbbc021" / "archives"
    where.mkdir(parents=True)
    name, body = FIRST.rsplit("/", 1)[1], server.files[FIRST]
    (where / f"{name}.part").write_bytes(body)
    (where / f"{name}.part.json").write_text(json.dumps(
        {"url": server.url + FIRST[1:], "validator": '"x"', "total": len(body)}))
    fetch(plates=PLATES[:1])
    whole(tmp_path / "bbbc021", PLATES[:1])
    assert server.gets(FIRST) == []


def test_404_names_the_address_and_the_others_go_on(fetch, server, tmp_path):
    sound = server.files.pop(FIRST)
    with pytest.raises(MorphobenchError, match=r"404 Not Found.*--plates") as caught:
        fetch()
    assert server.url + FIRST[1:] in str(caught.value)
    nothing_final(tmp_path / "bbbc021", PLATES[0])
    whole_other = read_lock(tmp_path / "bbbc021" / "lock.json").archives
    assert f"BBBC021_v1_images_{PLATES[1]}.zip" in whole_other
    assert len(server.gets(FIRST)) == 1  # no use in asking again
    server.files[FIRST] = sound
    fetch()
    whole(tmp_path / "bbbc021")


def test_several_failures_are_all_told(fetch, server):
    del server.files[FIRST], server.files[TENTH]
    with pytest.raises(FaultsError, match="1 of 3 archives have come") as caught:
        fetch(plates=())
    assert len(caught.value.faults) == 2 and PLATES[0] in str(caught.value) and PLATES[2] in str(caught.value)


def flipped(body: bytes) -> bytes:
    data = bytearray(body)
    data[len(data) // 2] ^= 8
    return bytes(data)


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
    assert not list(tmp_path.parent.rglob("evil*"))


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
    (image_table()[:-40], "columns where the header has|no CSV table"),
    (image_table().replace(b'"Week2_24121",', b'"../../etc",'), "not a plate's name"),
])
def test_a_table_that_is_none_is_refused(fetch, server, tmp_path, body, match):
    sound, server.files[TABLE] = server.files[TABLE], body
    with pytest.raises(MorphobenchError, match=match):
        fetch()
    assert not server.gets(".zip")
    if not body.startswith((b"a,b", b'"Table')) or body == image_table()[:-40]:
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


def other_content() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as z:
        for site in (1, 2):
            for channel in (1, 2, 4):
                z.writestr(f"{PLATES[0]}/{image(PLATES[0], site, channel)[0]}", b"other" * site)
    return out.getvalue()


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


def lay_out(root: Path, plate: str) -> None:
    (root / plate).mkdir(parents=True)
    for site in (1, 2):
        for channel in (1, 2, 4):
            name, data = image(plate, site, channel)
            (root / plate / name).write_bytes(data)


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
        monkeypatch.setattr("benchmark.assays.fetch.retrieve", real)
    with pytest.raises(KeyboardInterrupt):
        fetch(plates=PLATES[:1])
    root = tmp_path / "bbbc021"
    assert not (root / PLATES[0]).exists() and not list(root.glob(".unpacking-*"))
    monkeypatch.undo()
    fetch(plates=PLATES[:1])
    whole(root, PLATES[:1])
    assert len(server.gets(FIRST)) == 1


CHILD = """
import sys
from pathlib import Path
from benchmark.assays.fetch import fetch_assay
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


def test_the_catalogue_reads_the_official_table(data_folder, tmp_path):
    packed = data_folder / "bbbc021_metadata" / "BBBC021_v1_image.csv.gz"
    (tmp_path / "BBBC021_v1_image.csv").write_bytes(gzip.decompress(packed.read_bytes()))
    known = archives_of(find_collection("bbbc021"), tmp_path)
    assert len(known) == 55 and {a.images for a in known} == {720} and len({a.folder for a in known}) == 55
    assert known[0].remote == "BBBC021/BBBC021_v1_images_Week1_22123.zip" and known[0].folder == "Week1_22123"
    assert known[-1].folder == "Week10_40119"
    for name in ("moa", "compound"):
        assert collections.table_rows(data_folder / "bbbc021_metadata" / f"BBBC021_v1_{name}.csv")


def test_where_data_and_servers_are(tmp_path):
    assert collections.data_folder({"MORPHOBENCH_DATA": str(tmp_path)}) == tmp_path
    default = collections.data_folder({})
    assert default.name == "morphobench" and not default.is_relative_to(Path(collections.__file__).parents[2])
    assert base_address(None, {}) == BASE_URL
    assert base_address(None, {"MORPHOBENCH_BBBC_URL": "http://mirror/bbbc"}) == "http://mirror/bbbc/"
    assert base_address("http://a/", {"MORPHOBENCH_BBBC_URL": "http://mirror/bbbc"}) == "http://a/"
    for bad in ("file:///etc", "ftp://x/", "mirror", "http://x/?a=1", "http:// x/"):
        with pytest.raises(MorphobenchError, match="not an http"):
            base_address(bad)


def test_the_environment_names_the_server(server, tmp_path, monkeypatch):
    monkeypatch.setenv("MORPHOBENCH_BBBC_URL", server.url.rstrip("/"))
    fetch_assay("bbbc021", tmp_path, plates=PLATES[:1], patience=QUICK)
    whole(tmp_path / "bbbc021", PLATES[:1])
