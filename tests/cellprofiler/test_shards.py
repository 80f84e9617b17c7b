import csv
import shutil
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from fake_cellprofiler import PIPELINE
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_assay import small_assay

from benchmark.base.errors import MorphobenchError
from benchmark.base.tables import FIELD_KEY, SITE
from benchmark.cellprofiler.find import CellProfiler
from benchmark.cellprofiler.shards import NUMBER, image_channels, plan_shards, stage
from benchmark.quality.check import file_hashes

CP = CellProfiler(("cp",), "4.2.8.1", "test")
IMAGES = {"OrigActin": "Actin", "OrigDNA": "DNA"}


@pytest.fixture(scope="module")
def assay(tmp_path_factory):
    return small_assay(tmp_path_factory.mktemp("assay"), wells=5, sites=3)


@pytest.fixture(scope="module")
def hashes(assay):
    return file_hashes(assay)


def keys(shards):
    return {s.key for s in shards}


@given(size=st.integers(1, 20))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15, deadline=None)
def test_every_field_lies_in_one_shard_of_bounded_size(assay, hashes, size):
    shards = plan_shards(assay, IMAGES, hashes, PIPELINE, CP, size)
    found = [(f.plate, f.well, f.site) for s in shards for f in s.fields]
    assert sorted(found) == sorted(assay.fields[FIELD_KEY].itertuples(index=False, name=None))
    assert max(len(s.fields) for s in shards) <= size
    assert len(keys(shards)) == len(shards)


def test_a_quick_look_makes_shards_that_the_full_run_uses(assay, hashes):
    quick = replace(assay, fields=assay.fields[assay.fields[SITE] == 1].reset_index(drop=True))
    full = keys(plan_shards(assay, IMAGES, hashes, PIPELINE, CP, 2))
    part = keys(plan_shards(quick, IMAGES, hashes, PIPELINE, CP, 2))
    assert part < full


def test_the_key_follows_content_and_nothing_else(assay, hashes, tmp_path):
    base = keys(plan_shards(assay, IMAGES, hashes, PIPELINE, CP, 4))
    moved = tmp_path / "elsewhere"
    shutil.copytree(assay.root, moved)
    other = CellProfiler(("/other/cp",), CP.version, "CELLPROFILER")
    assert keys(plan_shards(replace(assay, root=moved), IMAGES, hashes, PIPELINE, other, 4)) == base
    assert not base & keys(plan_shards(assay, IMAGES, hashes, PIPELINE + "\n", CP, 4))
    assert not base & keys(plan_shards(assay, IMAGES, hashes, PIPELINE, replace(CP, version="4.2.6"), 4))
    assert not base & keys(plan_shards(assay, {**IMAGES, "OrigDNA": "Tubulin"}, hashes, PIPELINE, CP, 4))
    first = next(iter(hashes))
    changed = keys(plan_shards(assay, IMAGES, {**hashes, first: "0" * 64}, PIPELINE, CP, 4))
    assert len(base - changed) == 1


def test_staging_keeps_pixels_and_hides_names(assay, hashes, tmp_path):
    shard = plan_shards(assay, IMAGES, hashes, PIPELINE, CP, 4)[0]
    stage(shard, PIPELINE, tmp_path / "run")
    assert (tmp_path / "run" / "pipeline.cppipe").read_text() == PIPELINE
    rows = list(csv.DictReader((tmp_path / "run" / "load_data.csv").open()))
    assert [int(r[NUMBER]) for r in rows] == list(range(len(shard.fields)))
    for field, row in zip(shard.fields, rows, strict=True):
        for plane in field.planes:
            staged = tmp_path / "run" / "images" / row[f"Image_FileName_{plane.image}"]
            np.testing.assert_array_equal(tifffile.imread(staged), tifffile.imread(plane.path)[plane.plane])
        assert all(c.isascii() and "=" not in c for c in row.values())
    assert len({r["Metadata_Plate"] for r in rows}) == 1 and len({r["Metadata_Well"] for r in rows}) == 4


@pytest.mark.parametrize("fault", ["truncated", "zero", "gone", "sizes"])
def test_images_that_cellprofiler_would_swallow_or_choke_on_are_refused(tmp_path, fault):
    assay = small_assay(tmp_path / "a", wells=2)
    hashes = file_hashes(assay)
    shard = plan_shards(assay, IMAGES, hashes, PIPELINE, CP, 4)[0]
    path = shard.fields[1].planes[1].path
    pixels = tifffile.imread(path)
    if fault == "truncated":
        path.write_bytes(path.read_bytes()[:-500])
    elif fault == "zero":
        pixels[0] = 0
        tifffile.imwrite(path, pixels, photometric="minisblack")
    elif fault == "gone":
        path.unlink()
    else:
        bad = replace(shard.fields[1].planes[0], path=tmp_path / "small.tif", plane=0)
        tifffile.imwrite(bad.path, pixels[0, :8])
        field = replace(shard.fields[1], planes=(bad, shard.fields[1].planes[1]))
        shard = replace(shard, fields=(shard.fields[0], field))
    with pytest.raises(MorphobenchError) as caught:
        stage(shard, PIPELINE, tmp_path / "run")
    assert path.name in str(caught.value)
    words = {"truncated": "truncated", "zero": "every pixel of OrigDNA is 0", "gone": "does not exist", "sizes": "size"}
    assert words[fault] in str(caught.value)


def test_fields_that_cannot_be_staged_are_left_out_where_that_is_asked_for(tmp_path):
    assay = small_assay(tmp_path / "a", wells=4)
    shard = plan_shards(assay, IMAGES, file_hashes(assay), PIPELINE, CP, 4)[0]
    shard.fields[0].planes[1].path.unlink()
    pixels = tifffile.imread(shard.fields[2].planes[1].path)
    pixels[0] = 7  # the second plane to be staged: the first is written already
    tifffile.imwrite(shard.fields[2].planes[1].path, pixels, photometric="minisblack")
    faults = {}
    staged = stage(shard, PIPELINE, tmp_path / "run", faults)
    assert staged == replace(shard, fields=(shard.fields[1], shard.fields[3]))
    assert {i: fault.what for i, fault in faults.items()} == {
        0: "does not exist", 2: "every pixel of OrigDNA is 7: nothing can be segmented"}
    # What is left is staged as if the others had never been there.
    stage(staged, PIPELINE, tmp_path / "other")
    assert sorted(p.name for p in (tmp_path / "run" / "images").iterdir()) == [
        f"f0000{i}_{image}.tif" for i in (0, 1) for image in IMAGES]
    for path in (tmp_path / "run" / "images").iterdir():
        assert path.read_bytes() == (tmp_path / "other" / "images" / path.name).read_bytes()
    rows = [list(csv.DictReader((tmp_path / name / "load_data.csv").open())) for name in ("run", "other")]
    assert [[r[NUMBER] for r in part] for part in rows] == [["0", "1"], ["0", "1"]]


def test_images_find_their_channels_by_name_or_by_the_study():
    channels = ("DNA", "Tubulin", "Actin")
    assert image_channels(PIPELINE, {}, channels) == IMAGES
    assert image_channels(PIPELINE, {"OrigDNA": "Actin"}, channels) == {"OrigDNA": "Actin"}
    with pytest.raises(MorphobenchError, match="loads OrigActin"):
        image_channels(PIPELINE, {}, ("DNA", "Phalloidin"))
    with pytest.raises(MorphobenchError, match="no channel 'Dapi'"):
        image_channels(PIPELINE, {"OrigDNA": "Dapi"}, channels)
