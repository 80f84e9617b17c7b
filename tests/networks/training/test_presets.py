"""What a preset fills in, and that what a study gives is kept."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from benchmark.methods.kinds.finetuned import FinetunedMethod
from benchmark.networks.settings import TrainingSettings
from benchmark.networks.training.presets import resolved


def method(backbone: str = "tf_efficientnet_lite0", **training: object) -> FinetunedMethod:
    return FinetunedMethod.model_validate({"kind": "cnn_finetuned", "name": "cnn", "network": {"backbone": backbone},
                                           "training": training})


@pytest.mark.parametrize(("backbone", "epochs", "rate"), [
    ("resnet50", 5, 5e-4), ("inception_v3.tf_in1k", 7, 5e-4), ("inception_resnet_v2", 5, 1e-3)])
def test_the_papers_settings_of_july_hang_on_the_network(backbone, epochs, rate):
    t = method(backbone, preset="kensert-2018-07").training
    assert (t.epochs, t.learning_rate, t.batch) == (epochs, rate, 32)
    assert (t.optimizer, t.momentum, t.schedule, t.warmup, t.weight_decay) == ("sgd", 0.9, "constant", 0.0, 0.0)
    assert (t.augmentation, t.learn, t.early_stopping, t.recalibrate) == ("kensert2019", "full", 0, False)


def test_the_papers_settings_of_august_are_the_same_for_all():
    t = method("resnet50", preset="kensert-2018-08").training
    assert (t.epochs, t.learning_rate, t.batch, t.optimizer) == (10, 1e-4, 8, "sgd")
    assert method(preset="kensert-2018-08").training.epochs == 10


def test_what_is_given_is_kept_even_where_it_is_the_default():
    t = method("resnet50", preset="kensert-2018-07", optimizer="adamw", epochs=2, gain=0.1).training
    assert (t.optimizer, t.epochs, t.gain, t.batch) == ("adamw", 2, 0.1, 32)


def test_the_resolved_values_are_in_the_configuration_and_resolve_to_themselves():
    first = method("inception_v3", preset="kensert-2018-07", learning_rate=1e-3)
    dumped = first.model_dump(mode="json")
    assert dumped["training"]["epochs"] == 7 and dumped["training"]["optimizer"] == "sgd"
    assert FinetunedMethod.model_validate(dumped) == first
    assert resolved(first.training, "inception_v3") == first.training


def test_a_network_that_the_paper_did_not_have_needs_its_own_epochs_and_rate():
    with pytest.raises(ValidationError, match="for resnet50, inception_v3, inception_resnet_v2 and not for tf_effi"):
        method(preset="kensert-2018-07", epochs=3)
    assert method(preset="kensert-2018-07", epochs=3, learning_rate=1e-3).training.batch == 32


@pytest.mark.parametrize(("training", "words"), [
    ({"epochs": 5, "snapshots": 2}, "cycles of equal length"),
    ({"epochs": 4, "snapshots": 2, "average": "swa"}, "snapshots need"),
    ({"early_stopping": 2, "average": "ema"}, "early_stopping needs"),
    ({"mc_dropout": 5}, "needs dropout"),
    ({"mc_dropout": 1, "dropout": 0.5}, "one pass"),
    ({"learn": "from:"}, "learn"),
])
def test_settings_that_contradict_each_other_are_refused(training, words):
    with pytest.raises(ValidationError, match=words):
        method(**training)


def test_nothing_given_is_the_modern_preset():
    assert method().training == TrainingSettings(**method().training.model_dump())
    plain = TrainingSettings()
    assert all(getattr(method().training, k) == getattr(plain, k) for k in TrainingSettings.model_fields)
