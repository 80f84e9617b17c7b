"""What a method says of itself: what it estimates from test wells, and what it did."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter

from benchmark.methods.base import MethodSettings, transductive, uses_controls
from benchmark.methods.registry import summary


def method(kind: str, **more: object) -> MethodSettings:
    return TypeAdapter(MethodSettings).validate_python({"kind": kind, "name": "m", **more})


def test_what_is_estimated_from_test_wells_is_said():
    assert transductive(method("cell_count")) == []
    profile = method("profile", profile={"normalise": "plate"})
    assert transductive(profile) == ["profiles normalised per plate to all its wells"]
    frozen = method("cnn_frozen", crops={"scale_from": "plate"})
    assert transductive(frozen, "functions averaged") == [
        "functions averaged", "crop intensities scaled per plate to quantiles of all its fields"]
    assert transductive(method("profile", profile={"normalise": "training"})) == []
    assert transductive(method("cnn_frozen", crops={"intensity": "bit_depth"})) == []


@pytest.mark.parametrize(("made", "looks"), [
    (method("profile"), True),
    (method("profile", profile={"normalise": "plate"}), False),
    (method("cnn_frozen"), True),
    (method("cnn_finetuned", crops={"intensity": "kensert2019"}), True),
    (method("cnn_finetuned", crops={"intensity": "kensert2019_bbbc014"}), False),
    (method("cnn_finetuned", crops={"scale_from": "plate"}), False),
    (method("cell_count"), False),
])
def test_who_looks_at_which_wells_are_controls(made, looks):
    assert bool(uses_controls(made)) is looks


def test_a_summary_says_what_was_changed_from_the_usual():
    text = summary(method("cnn_finetuned", crops={"intensity": "kensert2019", "size": 224},
                          network={"normalisation": "none"}, training={"epochs": 5, "augmentation": "kensert2019"}))
    for words in ("5 epochs", "kensert2019", "augmentation kensert2019", "without ImageNet scaling"):
        assert words in text
    ratio = method("profile", profile={"features": ["Nuclei_Math_*"]}, labels="permuted")
    assert "Nuclei_Math_*" in summary(ratio) and summary(ratio).endswith("permuted between compounds")
    assert summary(ratio, wells_permuted=True).endswith("between the wells of each compound")
    assert "profile table" in summary(ratio, imaged=False)
    # No field is known of a profile table: what is counted are its rows.
    assert "field" in summary(method("cell_count")) and "field" not in summary(method("cell_count"), imaged=False)
