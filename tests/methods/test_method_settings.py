"""What a method says of itself: what it estimates from test wells, and what it did."""

from __future__ import annotations

import pytest

from benchmark.methods.base import Method
from benchmark.methods.registry import METHODS


def method(kind: str, **more: object) -> Method:
    return METHODS.kinds()[kind].model_validate({"kind": kind, "name": "m", **more})


def test_what_is_estimated_from_test_wells_is_said():
    assert method("cell_count").estimated() == []
    profile = method("profile", profile={"normalise": "plate"})
    assert profile.estimated() == ["profiles normalised per plate to all its wells"]
    frozen = method("cnn_frozen", crops={"scale_from": "plate"})
    assert frozen.estimated() == ["crop intensities scaled per plate to quantiles of all its fields"]
    assert method("profile", profile={"normalise": "training"}).estimated() == []
    assert method("cnn_frozen", crops={"intensity": "bit_depth"}).estimated() == []


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
    assert bool(made.uses_controls) is looks


def test_a_summary_says_what_was_changed_from_the_usual():
    made = method("cnn_finetuned", crops={"intensity": "kensert2019", "size": 224},
                          network={"normalisation": "none"}, training={"epochs": 5, "augmentation": "kensert2019"})
    text = made.summary()
    for words in ("5 epochs", "kensert2019", "augmentation kensert2019", "without ImageNet scaling"):
        assert words in text
    ratio = method("profile", profile={"features": ["Nuclei_Math_*"]}, labels="permuted")
    assert "Nuclei_Math_*" in ratio.summary() and ratio.summary().endswith("permuted between compounds")
    assert ratio.summary(wells_permuted=True).endswith("between the wells of each compound")
    assert "profile table" in ratio.summary(program="")
    # No field is known of a profile table: what is counted are its rows.
    assert "field" in method("cell_count").summary() and "field" not in method("cell_count").summary(program="")
