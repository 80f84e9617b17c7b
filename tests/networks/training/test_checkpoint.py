"""A training that was stopped goes on to what it would have come to, and never from another's file."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmark.networks.feed.source import ArrayCrops
from benchmark.networks.predict import predict
from benchmark.networks.settings import NetworkSettings, TrainingSettings
from benchmark.networks.training.checkpoint import Checkpoint
from benchmark.networks.training.inputs import Examples, Recipe, Session
from benchmark.networks.training.train import Trained, fine_tune

CPU = torch.device("cpu")
TINY = NetworkSettings(backbone="test_efficientnet", weights="none")
ROWS = np.arange(24)
HELD_OUT = ROWS >= 18


class StoppedError(Exception):
    """Somebody pulls the plug."""


def crops() -> ArrayCrops:
    return ArrayCrops(np.random.default_rng(0).integers(0, 256, (24, 3, 32, 32)).astype(np.uint8))


def train(settings: TrainingSettings, checkpoint: Checkpoint | None = None, stop_after: int = 99, seed: int = 0,
          targets: np.ndarray = ROWS % 3) -> Trained:
    def on_epoch(epoch: int, loss: float) -> None:
        if epoch + 1 == stop_after:
            raise StoppedError

    return fine_tune(Examples(crops(), ROWS, targets, 3, HELD_OUT), Recipe(TINY, settings, seed),
                     Session(CPU, checkpoint, on_epoch))


def said(trained: Trained, settings: TrainingSettings) -> np.ndarray:
    return predict(trained.backbone, trained.snapshots, crops(), ROWS, CPU, settings, trained.bfloat16, 0).p


@pytest.mark.parametrize("settings", [
    {}, {"optimizer": "sgd", "augmentation": "kensert2019", "dropout": 0.5}, {"average": "ema", "mix": "mixup"},
    {"average": "swa", "average_from": 0.3, "mix": "cutmix"}, {"snapshots": 2, "recalibrate": True},
    {"early_stopping": 1, "learning_rate": 0.05}, {"learn": "head", "layer_decay": 0.5, "recalibrate": True},
])
def test_a_stopped_training_comes_to_the_same_to_the_bit(tmp_path, settings):
    s = TrainingSettings.model_validate({"epochs": 4, "batch": 5, **settings})
    unbroken = train(s)
    checkpoint = Checkpoint(tmp_path / "fold.checkpoint", "key")
    if len(unbroken.losses) > 2:
        with pytest.raises(StoppedError):
            train(s, checkpoint, stop_after=2)
        assert checkpoint.path.exists()
    torch.manual_seed(99)  # whatever was drawn in between
    seen: list[int] = []
    resumed = fine_tune(Examples(crops(), ROWS, ROWS % 3, 3, HELD_OUT), Recipe(TINY, s),
                        Session(CPU, checkpoint, lambda e, _: seen.append(e)))
    assert seen == list(range(2 if len(unbroken.losses) > 2 else 0, len(unbroken.losses)))
    assert (resumed.before[0] > 0) == (len(unbroken.losses) > 2) and unbroken.before == (0, 0)
    assert resumed.losses == unbroken.losses and resumed.facts == unbroken.facts
    assert np.array_equal(said(resumed, s), said(unbroken, s))
    for name, tensor in unbroken.backbone.model.state_dict().items():
        assert torch.equal(tensor, resumed.backbone.model.state_dict()[name]), name


@pytest.mark.parametrize("change", ["settings", "seed", "targets", "key", "damaged", "foreign"])
def test_a_checkpoint_of_something_else_is_never_gone_on_from(tmp_path, change):
    s = TrainingSettings(epochs=3, batch=8)
    path = tmp_path / "fold.checkpoint"
    with pytest.raises(StoppedError):
        train(s, Checkpoint(path, "key"), stop_after=2)
    if change == "damaged":
        path.write_bytes(path.read_bytes()[:5000])
    if change == "foreign":
        torch.save([1, 2], path)
    seed, targets = int(change == "seed"), (ROWS + (change == "targets")) % 3
    s = TrainingSettings(epochs=3, batch=8, label_smoothing=0.1) if change == "settings" else s
    checkpoint = Checkpoint(path, "other" if change == "key" else "key")
    assert train(s, checkpoint, seed=seed, targets=targets).losses == train(s, seed=seed, targets=targets).losses


def test_a_finished_training_is_not_run_again(tmp_path):
    s = TrainingSettings(epochs=2, batch=8)
    checkpoint = Checkpoint(tmp_path / "fold.checkpoint", "key")
    first = train(s, checkpoint)
    again = train(s, checkpoint, stop_after=1)  # would stop after an epoch, if one were run
    assert again.losses == first.losses and np.array_equal(said(again, s), said(first, s))


def test_removing_takes_what_a_killed_process_left(tmp_path):
    (tmp_path / ".fold.checkpoint.ab12.tmp.checkpoint").write_text("half")
    (tmp_path / "other.checkpoint").write_text("kept")
    Checkpoint(tmp_path / "fold.checkpoint", "key").remove()
    assert [p.name for p in tmp_path.iterdir()] == ["other.checkpoint"]


PROGRAM = """
import sys
from pathlib import Path
import numpy as np
import torch
torch.set_num_threads(1)
from tests.networks.training.test_checkpoint import Checkpoint, TrainingSettings, said, train
settings = TrainingSettings(epochs=8, batch=5, augmentation="kensert2019")
trained = train(settings, Checkpoint(Path(sys.argv[1]), "key"))
np.save(sys.argv[2], said(trained, settings))
"""


@pytest.mark.slow
def test_killed_without_warning_it_goes_on_to_the_same(tmp_path):
    def start(name: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path / f"{name}.checkpoint"),
                                 str(tmp_path / f"{name}.npy")], cwd=Path(__file__).parents[3])

    assert start("whole").wait() == 0
    for _ in range(2):  # killed twice
        process = start("killed")
        before = (tmp_path / "killed.checkpoint").stat().st_mtime_ns if (tmp_path / "killed.checkpoint").exists() else 0
        while not (tmp_path / "killed.checkpoint").exists() or \
                (tmp_path / "killed.checkpoint").stat().st_mtime_ns == before:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "killed.npy").exists()
    assert start("killed").wait() == 0
    assert np.array_equal(np.load(tmp_path / "killed.npy"), np.load(tmp_path / "whole.npy"))
