import numpy as np
import pandas as pd
from fake_cellprofiler import PIPELINE, write_output

from benchmark.base.tables import FIELD_KEY
from benchmark.cellprofiler.check import Output, check_run
from benchmark.cellprofiler.ingest import OBJECT_NUMBER, cell_table, image_table
from benchmark.cellprofiler.shards import NUMBER, Shard, StagedField

SHARD = Shard("k", tuple(StagedField("P, 1", f"B{i:02d}", f"s{i}", ()) for i in range(3)))


def test_cells_join_their_nuclei_by_parent_and_their_field_by_number(tmp_path):
    write_output(tmp_path, [2, 0, 1], empty=[1])
    cells, left_out = cell_table(check_run(SHARD, tmp_path, PIPELINE), SHARD)
    assert left_out == []
    assert cells[FIELD_KEY].to_numpy().tolist() == [["P, 1", "B02", "s2"]] * 2 + [["P, 1", "B00", "s0"]] * 2
    # The fake's cells are numbered against its nuclei, and both areas name the pair.
    assert cells["Cells_AreaShape_Area"].tolist() == [2002, 2001, 2, 1]
    assert cells["Nuclei_AreaShape_Area"].tolist() == [202, 201, 2, 1]
    assert cells["Metadata_Nuclei_Location_Center_X"].tolist() == [12, 11, 12, 11]


def test_only_measurements_become_features(tmp_path):
    write_output(tmp_path, [0, 1, 2])
    cells, _ = cell_table(check_run(SHARD, tmp_path, PIPELINE), SHARD)
    features = [c for c in cells if not c.startswith("Metadata_")]
    assert features == ["Cells_AreaShape_Area", "Nuclei_AreaShape_Area"]
    assert (cells[features].dtypes == np.float32).all()


def test_fields_without_cells_stay_in_the_image_table(tmp_path):
    write_output(tmp_path, [0, 1, 2], empty=[0, 1, 2])
    output = check_run(SHARD, tmp_path, PIPELINE)
    images = image_table(output, SHARD)
    assert images["Count_Cells"].tolist() == [0, 0, 0]
    assert images["Image_ImageQuality_Focus_OrigDNA"].tolist() == [0.5, 1.5, 2.5]
    assert list(images.columns) == [*FIELD_KEY, "Count_Nuclei", "Count_Cells", "Image_ImageQuality_Focus_OrigDNA"]
    cells, _ = cell_table(output, SHARD)
    assert cells.empty and set(FIELD_KEY) <= set(cells)


def output_of(**objects):
    return Output(pd.DataFrame(), {k: pd.DataFrame(v) for k, v in objects.items()}, {})


CELLS = {NUMBER: [0, 0, 1], "ObjectNumber": [1, 2, 1], "Parent_Nuclei": [1, 2, 1], "AreaShape_Area": [10.0, 20, 30]}
NUCLEI = {NUMBER: [0, 0, 1], "ObjectNumber": [1, 2, 1], "AreaShape_Area": [1.0, 2, np.inf]}


def test_a_cell_without_cytoplasm_has_missing_values_and_infinity_is_missing():
    cytoplasm = {NUMBER: [1, 0], "ObjectNumber": [1, 1], "Parent_Cells": [1, 2], "Parent_Nuclei": [1, 2],
                 "AreaShape_Area": [300.0, 200]}
    cells, left_out = cell_table(output_of(Nuclei=NUCLEI, Cells=CELLS, Cytoplasm=cytoplasm), SHARD)
    assert left_out == []
    np.testing.assert_array_equal(cells["Cytoplasm_AreaShape_Area"], np.float32([np.nan, 200, 300]))
    np.testing.assert_array_equal(cells["Nuclei_AreaShape_Area"], np.float32([1, 2, np.nan]))


def test_objects_that_do_not_pair_off_are_left_out_and_named():
    speckles = {NUMBER: [0, 0, 0], "ObjectNumber": [1, 2, 3], "Parent_Cells": [1, 1, 2], "AreaShape_Area": [1.0, 1, 1]}
    strays = {NUMBER: [0], "ObjectNumber": [1], "AreaShape_Area": [1.0]}
    orphans = {NUMBER: [0, 0, 0], "ObjectNumber": [1, 2, 3], "Parent_Cells": [0, 0, 2], "AreaShape_Area": [1.0, 1, 5]}
    cells, left_out = cell_table(
        output_of(Nuclei=NUCLEI, Cells=CELLS, Speckles=speckles, Strays=strays, Orphans=orphans), SHARD)
    assert left_out == ["Speckles", "Strays"] and len(cells) == 3
    np.testing.assert_array_equal(cells["Orphans_AreaShape_Area"], np.float32([np.nan, 5, np.nan]))


def test_a_pipeline_without_cells_stands_on_its_nuclei():
    cells, _ = cell_table(output_of(Nuclei=NUCLEI), SHARD)
    assert cells["Nuclei_AreaShape_Area"].iloc[:2].tolist() == [1, 2]


def test_objects_of_any_name_join_the_one_in_the_middle():
    cells = {**CELLS, "Parent_Kerne": CELLS["Parent_Nuclei"]}
    del cells["Parent_Nuclei"]
    plasma = {NUMBER: [1, 0], "ObjectNumber": [1, 1], "Parent_Zellen": [1, 2], "Parent_Kerne": [1, 2],
              "AreaShape_Area": [300.0, 200]}
    table, left_out = cell_table(output_of(Kerne=NUCLEI, Zellen=cells, Plasma=plasma), SHARD)
    assert left_out == [] and len(table) == 3
    np.testing.assert_array_equal(table["Zellen_AreaShape_Area"], np.float32([10, 20, 30]))
    np.testing.assert_array_equal(table["Plasma_AreaShape_Area"], np.float32([np.nan, 200, 300]))


def test_whole_fields_without_objects_give_a_table_of_keys_and_image_features():
    images = pd.DataFrame({"ImageNumber": [1, 2, 3], NUMBER: [0, 1, 2], "FileName_DNA": "a.tif", "Height_DNA": 10,
                           "Texture_Entropy_DNA_3_00_256": [0.5, 1.5, 2.5], "Granularity_1_DNA": [1, np.nan, 3]})
    output = Output(images.set_index(NUMBER, drop=False), {}, {})
    cells, left_out = cell_table(output, SHARD)
    assert list(cells) == [*FIELD_KEY, OBJECT_NUMBER] and cells.empty and left_out == []
    table = image_table(output, SHARD)
    assert list(table) == [*FIELD_KEY, "Image_Texture_Entropy_DNA_3_00_256", "Image_Granularity_1_DNA"]
    assert table["Image_Texture_Entropy_DNA_3_00_256"].tolist() == [0.5, 1.5, 2.5]
    assert table["Metadata_Site"].tolist() == ["s0", "s1", "s2"]
