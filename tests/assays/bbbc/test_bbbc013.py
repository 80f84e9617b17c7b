"""BBBC013's plate: the real one, whole, and the official layout on a fake."""

from pathlib import Path

import numpy as np
import pytest
from fake_bbbc import bbbc013_doses, write_bbbc013, write_platemap

from benchmark.assays.bbbc.bbbc013 import PLATEMAP, Bbbc013AssaySettings, load_bbbc013
from benchmark.base.errors import FaultsError, MorphobenchError
from benchmark.base.tables import COMPOUND, CONCENTRATION, CONTROL, LABEL, REPLICATE, WELL
from benchmark.images.reading import read_field


def _load(root: Path):
    return load_bbbc013(Bbbc013AssaySettings(root=str(root)), "plate", Path())


@pytest.fixture
def real(data_folder):
    return _load(data_folder / "bbbc013")


def test_the_real_plate(real):
    assert real.channels == ("FKHR", "DNA") and real.scoring == "controls" and real.labels == ["cytoplasmic", "nuclear"]
    assert len(real.fields) == len(real.predicted) == 96 and len(real.treated) == 24 and len(real.responses) == 72
    fields = real.fields.set_index(WELL)
    assert fields.groupby([COMPOUND, LABEL, CONTROL]).size().to_dict() == {
        (c, *kind): n for c in ("Wortmannin", "LY294002")
        for kind, n in ((("", ""), 36), (("cytoplasmic", "negative"), 8), (("nuclear", "positive"), 4))}
    # Micromolar, of nM and µM. The positive control of Wortmannin (150 nM) lies below the end of its series.
    assert fields.loc["A03", CONCENTRATION] == 0.00098 and fields.loc["D11", CONCENTRATION] == 0.25
    assert set(fields.loc[["A12", "B12", "C12", "D12"], CONCENTRATION]) == {0.15}
    assert fields.loc["F03", CONCENTRATION] == 0.31 and fields.loc["H11", CONCENTRATION] == 80
    assert set(fields.loc[["E01", "F01", "G01", "H01"], LABEL]) == {"nuclear"}
    assert set(fields.loc[["A01", "A02", "E02", "E12"], LABEL]) == {"cytoplasmic"}
    assert fields.loc["E12", COMPOUND] == "LY294002" and fields.loc["E12", REPLICATE] == 1
    assert fields.loc["C05", "Path_DNA"] == "Channel2-29-C-05.tif"


def test_labels_agree_with_the_pixels_of_the_real_plate(real):
    """Where FKHR is nuclear, its image follows the DNA's. This holds for every control of both compounds."""
    follow = {}
    for row in real.treated.itertuples():
        fkhr, dna = read_field(real, real.fields.loc[row.Index]).astype(float)
        follow[row.Metadata_Well] = np.corrcoef(fkhr.ravel(), dna.ravel())[0, 1]
    wells = real.treated.assign(follow=real.treated[WELL].map(follow))
    for _, half in wells.groupby(COMPOUND):
        low, high = (half.loc[half[LABEL] == label, "follow"] for label in ("cytoplasmic", "nuclear"))
        assert low.max() < high.min()


def test_the_fetched_layout_with_its_plate_map(tmp_path, data_folder):
    write_bbbc013(tmp_path)
    ours, real = _load(tmp_path).fields, _load(data_folder / "bbbc013").fields
    keys = [WELL, COMPOUND, CONCENTRATION, LABEL, CONTROL, REPLICATE]
    assert ours[keys].equals(real[keys])
    assert ours["Path_FKHR"][0] == "BBBC013_v1_images_bmp/Channel1-01-A-01.BMP"


def _metadata(folder: Path, data: Path, old: str = "", new: str = ""):
    text = (data / "bbbc013" / "1049_Metadata.csv").read_text()
    assert old in text
    (folder / "1049_Metadata.csv").write_text(text.replace(old, new, 1) if old else text)


def test_both_files_must_agree(tmp_path, data_folder):
    write_bbbc013(tmp_path)
    _metadata(tmp_path, data_folder)
    assert len(_load(tmp_path).fields) == 96
    entries = bbbc013_doses()
    entries[2], entries[3] = entries[3], entries[2]
    write_platemap(tmp_path / PLATEMAP, entries)
    with pytest.raises(FaultsError, match=r"well A03: 1049_Metadata.csv gives dose number 1, .* number 2"):
        _load(tmp_path)


@pytest.mark.parametrize(("old", "new", "message"), [
    ("12,12,A,10,1", "12,12,A,10,0", "row 13: SBS_Doses is '10' and SBS_Controls '0'"),
    ("3,03,A,1,0", "3,03,A,11,0", "row 4: SBS_Doses is '11'"),
    ("3,03,A,1,0", "3,03,A,1.5,0", "row 4: SBS_Doses is '1.5'"),
    ("3,03,A,1,0", "3,04,A,1,0", "lacks the well A03"), ("3,03,A,1,0", "3,03,K,1,0", "'K03' is not a well"),
    ("SBS_Doses", "Doses", "lacks the columns SBS_Doses"),
])
def test_metadata_that_contradict_the_layout(tmp_path, data_folder, old, new, message):
    write_bbbc013(tmp_path)
    (tmp_path / PLATEMAP).unlink()
    _metadata(tmp_path, data_folder, old, new)
    with pytest.raises(MorphobenchError) as caught:
        _load(tmp_path)
    assert message in str(caught.value) and "1049_Metadata.csv" in str(caught.value)


def test_a_map_of_another_plate_and_no_map(tmp_path):
    write_bbbc013(tmp_path)
    write_platemap(tmp_path / PLATEMAP, ["7"] * 96)
    with pytest.raises(FaultsError, match=r"well A01: 7 is no dose of Wortmannin"):
        _load(tmp_path)
    (tmp_path / PLATEMAP).unlink()
    with pytest.raises(MorphobenchError, match=r"neither 1049_Metadata.csv nor .*assay fetch bbbc013"):
        _load(tmp_path)
