"""The training loop, top to bottom. One path for every device."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping
from contextlib import closing
from copy import deepcopy
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn.functional import cross_entropy

from benchmark.base.errors import MorphobenchError
from benchmark.networks.device import moved
from benchmark.networks.feed.augment import draw
from benchmark.networks.feed.bags import Bags
from benchmark.networks.feed.feeding import BagFeed, crop_shape, feed_of
from benchmark.networks.feed.mixing import draw_mix
from benchmark.networks.predict import scores_of
from benchmark.networks.training.averaging import RECALIBRATION_CROPS, averaged_model, recalibrate
from benchmark.networks.training.checkpoint import array_hashes, on_cpu
from benchmark.networks.training.inputs import Examples, Recipe, Session
from benchmark.networks.training.learn import freeze, train_mode
from benchmark.networks.training.schedule import averaged_from, rate_factor
from benchmark.networks.training.shared import loss_weights, seen
from benchmark.networks.training.start import start_of
from benchmark.networks.training.step import Stepper, faster_in_bfloat16, forward, make_optimizer, on_device
from benchmark.networks.weights.weights import Backbone, load_backbone


@dataclass(frozen=True)
class Trained:
    """A fine-tuned network and what its training looked like.

    Attributes
    ----------
    losses, accuracies : tuple of float
        Means over the training crops, one per epoch (of augmented views, as seen while training).
    images : int
        Crops shown in total; of bags, those that were drawn.
    snapshots : tuple of state dicts
        Where several were asked for: the networks at the ends of the cycles, on the CPU.
    bfloat16 : bool
        Whether a CPU computed in bfloat16, and predicts so.
    facts : dict
        What else was decided during training, to be recorded with the fold.
    before : (float, float)
        Wall and CPU seconds of training before it was stopped and resumed; 0 where it was not.
    end : dict
        Of a trunk: what trainings of its folds start from, on the CPU.
    """

    backbone: Backbone
    losses: tuple[float, ...]
    accuracies: tuple[float, ...]
    images: int
    snapshots: tuple[dict[str, Tensor], ...] = ()
    bfloat16: bool = False
    facts: dict[str, Any] = field(default_factory=dict)
    before: tuple[float, float] = (0.0, 0.0)
    end: dict[str, Any] = field(default_factory=dict)


@dataclass
class _State:
    """What changes from epoch to epoch besides the network; saved and restored with it."""

    epoch: int = 0
    images: int = 0
    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    snapshots: list[dict[str, Tensor]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)


def fine_tune(examples: Examples, recipe: Recipe, session: Session) -> Trained:
    """Fine-tune a network on training crops, as the recipe's settings say.

    Crops that are not held in memory are read batch by batch, the next one while the device computes. All draws of an
    epoch are made on the CPU at its start, from the seed and the epoch's number alone; losses are read at its end. So
    an epoch depends on nothing but the state before it, and a killed training resumes to the very result that it
    would have had.

    Returns
    -------
    Trained
        The network, on the session's device.

    Raises
    ------
    MorphobenchError
        The loss is no longer finite, memory is too short, or weights or crops cannot be read.
    ValueError
        Settings contradict each other; or ``early_stopping`` has nothing to watch.
    """
    recipe = recipe.resolved()
    network, settings = recipe.network, recipe.training
    held_out = examples.held_out(settings)
    start = load_backbone(start_of(network, settings), crop_shape(examples.source)[0], examples.classes, recipe.seed,
                          settings.dropout)
    backbone, checkpoint = on_device(start, session.device), session.checkpoint
    if checkpoint is not None:
        bags = examples.source.members if isinstance(examples.source, Bags) else ()
        data = array_hashes(examples.rows, examples.targets, held_out, *bags)
        checkpoint = checkpoint.narrowed(settings.model_dump(mode="json"), network.model_dump(mode="json"),
                                         backbone.sha256, data, examples.classes, recipe.seed, session.device.type,
                                         torch.__version__)
    return _Training(backbone, examples, held_out, recipe, replace(session, checkpoint=checkpoint)).run()


def _clocks() -> tuple[float, float]:
    """Wall and CPU seconds of this process."""
    return time.perf_counter(), time.process_time()


class _Training:
    """The state of one call of `fine_tune`."""

    def __init__(self, backbone: Backbone, examples: Examples, held_out: np.ndarray, recipe: Recipe,
                 session: Session) -> None:
        source, settings, phase, device = examples.source, recipe.training, recipe.phase, session.device
        checkpoint = session.checkpoint
        self.backbone, self.settings, self.seed = backbone, settings, recipe.seed
        self.session, self.device, self.state = session, device, _State()
        self.crops, self.feed = crop_shape(source), feed_of(source, backbone, settings.learn, device)
        self.rows, self.labels = examples.rows[~held_out], torch.from_numpy(examples.targets[~held_out])
        self.validation = examples.rows[held_out], torch.from_numpy(examples.targets[held_out])
        freeze(backbone.model, settings.learn)
        self.phase, self.new = phase, None if phase is None else phase.new
        generator = self._generator(0)
        first = self.feed.drawn(self.rows[self._order(generator).numpy()], generator)
        self.per_epoch = max(1, len(first) // settings.batch)
        saved = checkpoint.load(device) if checkpoint else None
        if saved:
            bfloat16 = bool(saved["bfloat16"])  # measured again, it might come out differently
        elif settings.bfloat16 == "auto":
            one = (*first.shape[1:], *self.crops)
            bfloat16 = device.type == "cpu" and faster_in_bfloat16(backbone, one, settings.batch)
        else:
            bfloat16 = settings.bfloat16
        self.weights = loss_weights(self.labels, examples.classes, self.new)
        optimizer = make_optimizer(backbone.model, settings, device)
        self.stepper = Stepper(self.feed.backbone, optimizer, self.weights.to(device), settings, bfloat16)
        self.averaged = averaged_model(backbone.model, settings)
        self.before, self.started = (0.0, 0.0), _clocks()
        if saved:
            self._restore(saved)
        elif phase is not None and phase.start:
            self._continue(phase.start)

    def run(self) -> Trained:
        s, state, checkpoint = self.settings, self.state, self.session.checkpoint
        while state.epoch < s.epochs and not self._stopped():
            loss, accuracy = self._epoch(state.epoch)
            state.losses.append(loss)
            state.accuracies.append(accuracy)
            self._after_epoch(state.epoch)
            state.epoch += 1
            if checkpoint:
                checkpoint.save(self._saved())
            self.session.on_epoch(state.epoch - 1, loss)
        end = self._end() if self.phase is not None and self.phase.name == "trunk" else {}
        self._finish()
        return Trained(self.backbone, tuple(state.losses), tuple(state.accuracies), state.images,
                       tuple(state.snapshots), self.stepper.bfloat16, self._facts(), self.before, end)

    def _epoch(self, epoch: int) -> tuple[float, float]:
        """One pass over the training crops: mean loss, and share of correctly classified crops."""
        s, device = self.settings, self.device
        generator = self._generator(epoch)
        order = self._order(generator)
        n = len(order)
        drawn = self.feed.drawn(self.rows[order.numpy()], generator)
        draws = draw(s, drawn.size, self.crops[0], generator).to(device)
        mix = draw_mix(s, n, self.crops[1], generator)
        mix = None if mix is None else mix.to(device)
        noise = Generator(device).manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
        torch.manual_seed(int(torch.randint(2**62, (1,), generator=generator)))  # dropout and drop-path draw from there
        goals = moved(self.labels[order], device)
        # The last, short batch is spread over the others, so that batch normalisation never sees one crop.
        sizes = [len(part) for part in order.tensor_split(self.per_epoch)]
        sums = torch.zeros(2, device=device)
        train_mode(self.feed.backbone.model)
        start = 0
        with closing(self.feed.training(drawn, sizes, draws, mix, noise)) as batches:
            for i, (size, inputs) in enumerate(zip(sizes, batches, strict=True)):
                here = slice(start, start + size)
                factor = self._factor(epoch * self.per_epoch + i)
                sums += self.stepper(inputs, goals[here], None if mix is None else mix.shares[here], factor)
                if self.averaged is not None and s.average == "ema":
                    self.averaged.update_parameters(self.backbone.model)
                start += size
        total, right = sums.tolist()
        if not math.isfinite(total):
            raise MorphobenchError("the training loss is no longer finite", f"epoch {epoch + 1}",
                                   "Lower training.learning_rate.")
        self.state.images += drawn.size
        return total / n, right / n

    def _order(self, generator: Generator) -> Tensor:
        """Positions of the crops of an epoch, in the order in which they are seen."""
        return seen(self.labels, self.new, generator)

    def _factor(self, step: int) -> float:
        """On the peak rates in a step."""
        if self.phase is None:
            return rate_factor(self.settings, step, self.per_epoch)
        return self.phase.factor(step / (self.settings.epochs * self.per_epoch), self.settings)

    def _after_epoch(self, epoch: int) -> None:
        """Averages, snapshots and validation at the end of an epoch."""
        s, state = self.settings, self.state
        if self.averaged is not None and s.average == "swa" and epoch >= averaged_from(s):
            self.averaged.update_parameters(self.backbone.model)
        if s.snapshots > 1 and (epoch + 1) % (s.epochs // s.snapshots) == 0:
            self._recalibrate()
            state.snapshots.append(self._copy())
        if s.early_stopping:
            self._recalibrate()
            rows, labels = self.validation
            scores = torch.from_numpy(scores_of(self.feed, rows, self.stepper.bfloat16))
            state.validation.append(float(cross_entropy(scores, labels, self.weights)))
            if state.validation[-1] <= min(state.validation):
                state.best = self._copy()

    def _stopped(self) -> bool:
        """Whether the loss on held-out compounds has not improved for too long."""
        losses, patience = self.state.validation, self.settings.early_stopping
        return bool(losses) and patience > 0 and len(losses) - 1 - int(np.argmin(losses)) >= patience

    def _finish(self) -> None:
        """Put the weights that predict into the network."""
        if self.state.snapshots:
            return  # each has its statistics
        if self.state.best:
            self.backbone.model.load_state_dict(self.state.best)
            return
        if self.averaged is not None:
            self.backbone.model.load_state_dict(self.averaged.module.state_dict())
        self._recalibrate()

    def _recalibrate(self) -> None:
        """Statistics of batch normalisation over training crops as they are, where the settings ask for it."""
        s = self.settings
        if not s.recalibrate and s.average == "none":
            return
        generator = self._generator(-1)
        drawn = self.feed.drawn(self.rows[torch.randperm(len(self.rows), generator=generator).numpy()], generator)
        chosen = drawn[: max(1, RECALIBRATION_CROPS * len(drawn) // drawn.size)]
        with closing(self.feed.plain(np.array_split(chosen, max(1, len(chosen) // s.batch)))) as batches:
            run = self.feed.backbone
            recalibrate(run.model, chain.from_iterable(batches),
                        lambda inputs: forward(run, inputs, self.stepper.bfloat16))

    def _generator(self, epoch: int) -> Generator:
        """Of all draws of an epoch: the seed and the epoch set it, whatever was drawn before."""
        number = hashlib.sha256(f"{self.seed} {epoch}".encode()).digest()[:7]
        return Generator().manual_seed(int.from_bytes(number))

    def _copy(self) -> dict[str, Tensor]:
        return on_cpu(self.backbone.model.state_dict())

    def _saved(self) -> dict[str, Any]:
        """All that the next epoch starts from. Generators are none of it: see `_generator`."""
        averaged = None if self.averaged is None else self.averaged.state_dict()
        return {**vars(self.state), "model": self.backbone.model.state_dict(), "averaged": averaged,
                "optimizer": self.stepper.optimizer.state_dict(), "pieces": self.stepper.pieces,
                "bfloat16": self.stepper.bfloat16, "seconds": [b + now - then for b, now, then in zip(
                    self.before, _clocks(), self.started, strict=True)]}

    def _end(self) -> dict[str, Any]:
        """What a training that continues this one starts with, before anything is averaged or recalibrated."""
        averaged = None if self.averaged is None else self.averaged.state_dict()
        return {"model": self._copy(), "optimizer": deepcopy(self.stepper.optimizer.state_dict()),
                "averaged": averaged}

    def _continue(self, start: Mapping[str, Any]) -> None:
        """From the end of a training that others share."""
        self.backbone.model.load_state_dict(start["model"])
        # Optimisers keep the tensors that they are given: without a copy, folds would train the same tensors.
        self.stepper.optimizer.load_state_dict(deepcopy(start["optimizer"]))
        if self.averaged is not None:
            self.averaged.load_state_dict(start["averaged"])

    def _restore(self, saved: dict[str, Any]) -> None:
        self.backbone.model.load_state_dict(saved["model"])
        self.stepper.optimizer.load_state_dict(saved["optimizer"])
        self.stepper.pieces = saved["pieces"]
        wall, cpu = saved["seconds"]
        self.before = (wall, cpu)
        if self.averaged is not None:
            self.averaged.load_state_dict(saved["averaged"])
        self.state = replace(self.state, **{name: saved[name] for name in vars(self.state)})
        self.state.snapshots = [on_cpu(state) for state in self.state.snapshots]
        self.state.best = on_cpu(self.state.best)

    def _facts(self) -> dict[str, Any]:
        """Decisions made during training, and what they mean."""
        facts: dict[str, Any] = {"bfloat16": self.stepper.bfloat16 or self.device.type == "cuda"}
        if self.stepper.pieces > 1:
            size = math.ceil(self.settings.batch / self.stepper.pieces)
            what = "bags" if isinstance(self.feed, BagFeed) else "crops"
            facts["memory"] = (f"did not suffice for {self.settings.batch} {what} at once: gradients of "
                               f"{self.stepper.pieces} pieces of about {size} were added up to the same batch, and "
                               "batch normalisation saw these pieces")
        if self.state.validation:
            facts["validation_losses"] = self.state.validation
            facts["best_epoch"] = int(np.argmin(self.state.validation)) + 1
            facts["validated_on"] = len(self.validation[0])
        return facts
