"""The collections that can be fetched: their plates, where data lie, and which servers are asked."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from fake_server import QUICK

import benchmark
from benchmark.assays.fetching import collections
from benchmark.assays.fetching.collections import BASE_URL, archives_of, base_address, find_collection
from benchmark.assays.fetching.fetch import fetch_assay
from benchmark.base.errors import MorphobenchError


def test_the_catalogue_reads_the_official_table(data_folder, tmp_path):
    packed = data_folder / "bbbc021_metadata" / "BBBC021_v1_image.csv.gz"
    (tmp_path / "BBBC021_v1_image.csv").write_bytes(gzip.decompress(packed.read_bytes()))
    known = archives_of(find_collection("bbbc021"), tmp_path)
    assert len(known) == 55 and {a.images for a in known} == {720} and len({a.folder for a in known}) == 55
    assert known[0].remote == "BBBC021/BBBC021_v1_images_Week1_22123.zip" and known[0].folder == "Week1_22123"
    assert known[-1].folder == "Week10_40119"


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


@pytest.mark.parametrize("below", ["", "assays/data"])
def test_a_data_folder_inside_the_package_is_refused(server, tmp_path, below):
    package = Path(benchmark.__file__).parent
    (tmp_path / "link").symlink_to(package)
    for folder in (package / below, tmp_path / "link" / below):
        with pytest.raises(MorphobenchError, match=r"is inside the morphobench package.*MORPHOBENCH_DATA"):
            fetch_assay("bbbc013", folder, base_url=server.url, patience=QUICK)
        assert not (package / below / "bbbc013").exists()
    assert server.asked == []
