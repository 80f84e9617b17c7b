"""Fetching from a server that cuts, stalls and lies; a second try finishes, and nothing half-written is ever seen."""

from __future__ import annotations

import json
import sys
import threading

import pytest
from fake_server import (
    FIRST,
    PLATES,
    QUICK,
    TENTH,
    nothing_final,
    plate_archive,
    wells,
    whole,
)
from hostile_server import serving
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.assays.fetching.download import Patience, Resume
from benchmark.assays.fetching.fetch import fetch_assay
from benchmark.assays.fetching.lock import read_lock
from benchmark.base.errors import FaultsError, MorphobenchError

HASTY = Patience(connect=10, read=0.4, tries=3, pause=0.01, chunk=512)


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
    monkeypatch.setattr("benchmark.assays.fetching.download.GAIN", 300)
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
