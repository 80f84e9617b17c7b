"""Bags of the crops of fields and wells: they mix no wells, and settings that do not go with them are refused."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import field_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from benchmark.base.errors import FaultsError
from benchmark.crops.settings import CropSettings
from benchmark.methods.kinds.finetuned import FinetunedMethod
from benchmark.methods.workers.units import bags_of, field_of
from benchmark.networks.feed.bags import Bags
from benchmark.networks.settings import NetworkSettings
from benchmark.workflow.study import load_study


@settings(max_examples=40, deadline=None)
@given(sites=st.integers(1, 4), seed=st.integers(0, 2**31), bag=st.sampled_from(["field", "well"]))
def test_a_bag_mixes_no_wells_and_every_crop_is_in_one(sites, seed, bag):
    rng = np.random.default_rng(seed)
    fields = field_rows(labels=2, compounds=2, sites=sites).sample(frac=1, random_state=seed % 2**31, ignore_index=True)
    field = np.sort(rng.integers(0, len(fields), rng.integers(1, 40))).astype(np.int32)
    crops = SimpleNamespace(field=field, crop=np.arange(len(field)))
    members = bags_of(crops, fields, bag)
    assert sorted(np.concatenate(members)) == list(range(len(field)))
    key = ["Metadata_Plate", "Metadata_Well", *(["Metadata_Site"] if bag == "field" else [])]
    held = [fields.loc[field[m], key].drop_duplicates() for m in members]
    assert all(len(one) == 1 for one in held)
    assert not pd.concat(held).duplicated().any()
    own = fields.loc[field_of(crops, Bags(None, members, 2)), key].reset_index(drop=True)
    pd.testing.assert_frame_equal(own, pd.concat(held, ignore_index=True))


def test_settings_of_bags_are_kept_only_where_there_are_bags():
    plain = NetworkSettings(backbone="mil")
    assert not {"bag", "bag_size"} & plain.model_dump().keys() and not plain.bagged
    assert plain == NetworkSettings(backbone="mil", bag="crop")
    field = NetworkSettings(backbone="mil", bag="field")
    assert field.model_dump()["bag_size"] == 8 and field.bagged
    assert NetworkSettings.model_validate(field.model_dump()) == field
    made = FinetunedMethod(kind="cnn_finetuned", name="m", network=field, crops=CropSettings(grid=(2, 2)))
    text = made.summary()
    assert "the crops of each field" in text and "32 bags of up to 8 crops" in text


@pytest.mark.parametrize(("network", "more", "words"), [
    ({"backbone": "resnet50", "bag": "field"}, {}, "for backbone: mil alone"),
    ({"backbone": "mil", "bag_size": 4}, {}, "bag_size is for bag"),
    ({"backbone": "mil", "bag": "field"}, {"training": {"mix": "mixup"}}, "mix blends crops"),
    ({"backbone": "mil", "bag": "field"}, {"training": {"folds": "shared"}}, "with crops alone"),
    ({"backbone": "mil", "bag": "well", "pooling": "mean"}, {"embeddings": ["well"]}, "embeddings are of crops"),
    ({"backbone": "mil", "bag": "field"}, {"crops": {}}, "each field is one crop"),
])
def test_what_does_not_go_with_bags_is_refused(network, more, words):
    with pytest.raises(ValidationError, match=words):
        FinetunedMethod.model_validate({"kind": "cnn_finetuned", "name": "m", "network": network,
                                        "crops": {"grid": [2, 2]}, **more})


def test_single_crops_of_a_network_of_bags_are_not_explained(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("{name: s, assay: {kind: demo}, explain: {method: m}, methods: [{name: m, kind: cnn_finetuned, "
                    "network: {backbone: mil, bag: well}}]}")
    with pytest.raises(FaultsError, match="decides on bags of crops"):
        load_study(str(path))
