"""What all folds of a fine-tuned network share: crops, activations below what is learnt, trainings they start from."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmark.base.files import digest, read_json, write_json
from benchmark.base.tables import FIELD_KEY
from benchmark.base.tasks import RunTasks, progress_bar
from benchmark.crops.reader import open_crops
from benchmark.folds.fold import Fold
from benchmark.folds.trunks import Trunk, make_trunks, trunk_of, trunks_hash
from benchmark.methods.base import FinetunedMethod, FrozenMethod
from benchmark.methods.classifiers.labels import Permuted
from benchmark.methods.workers.embeddings import embedding_path, frozen_beside, write_units
from benchmark.methods.workers.finetuned import FinetunedFold, SharedTrunk, run_trunk
from benchmark.methods.workers.runs import RunFolder
from benchmark.networks.device import resolve_device
from benchmark.networks.embed import field_embeddings
from benchmark.networks.feed.activations import BATCH, sharable, store_activations, views_of
from benchmark.networks.training.checkpoint import Checkpoint
from benchmark.networks.training.learn import freeze, start_of
from benchmark.networks.training.step import faster_in_bfloat16
from benchmark.networks.weights.weights import load_backbone, weights_identity
from benchmark.workflow.crops import crops_of
from benchmark.workflow.opened import Opened


@dataclass(frozen=True)
class Finetuning:
    """What the folds of a method share.

    Attributes
    ----------
    crops : (Path, str)
        The crop cache and its key.
    inputs : dict
        Keys of what the method starts from, for its run folder.
    activations : (Path, str) or None
        Stored activations and their key.
    trunks : tuple of Trunk
        Where folds share trainings.
    """

    opened: Opened
    method: FinetunedMethod
    crops: tuple[Path, str]
    inputs: dict[str, Any]
    activations: tuple[Path, str] | None
    trunks: tuple[Trunk, ...]

    def task(self, run: RunFolder, fold: Fold, seed: int, labels: Permuted | None, out: Path) -> FinetunedFold:
        """One fold, as a worker gets it."""
        trunk = None
        if self.trunks:
            own = trunk_of(self.trunks, fold.name)
            trunk = SharedTrunk(own, run.path / f"seed{seed}-{own.name}.trunk")
        opened = self.opened
        return FinetunedFold(*self.crops, opened.assay, self.method, fold, seed, labels, opened.device, opened.threads,
                             out, self.activations, trunk)


def prepare_finetuning(opened: Opened, method: FinetunedMethod) -> Finetuning:
    """Make what the folds of a method share: its crops, and activations where these are the same in all folds.

    Raises
    ------
    LeakError
        A shared training would see what one of its folds tests.
    MorphobenchError
        Crops cannot be made, or nothing can be shared that the study wants shared.
    """
    crops = crops_of(opened, method)
    method = with_precision(opened, method, crops)
    inputs = {"crops": crops[1], "weights": weights_identity(start_of(method.network, method.training))}
    trunks = make_trunks(opened.split, opened.assay) if method.training.folds == "shared" else ()
    if trunks:
        inputs["trunks"] = trunks_hash(trunks)
    return Finetuning(opened, method, crops, inputs, activations_of(opened, method, crops), trunks)


def with_precision(opened: Opened, method: FinetunedMethod, crops: tuple[Path, str]) -> FinetunedMethod:
    """The method with ``bfloat16: auto`` decided: what is faster on this CPU is tried once, and kept for all folds.

    Folds that each tried for themselves might come to different answers, and a study would mix precisions.
    """
    training, device = method.training, resolve_device(opened.device)
    if training.bfloat16 != "auto":
        return method
    faster = device.type == "cpu" and _faster(opened, method, crops)
    return method.model_copy(update={"training": training.model_copy(update={"bfloat16": faster})})


def _faster(opened: Opened, method: FinetunedMethod, crops: tuple[Path, str]) -> bool:
    training, network = method.training, method.network
    shape: tuple[int, ...] = open_crops(*crops).shape
    channels = shape[0]
    if network.bagged:
        shape = (network.bag_size, *shape)
    key = digest([network.model_dump(mode="json"), training.learn, training.batch, shape, opened.threads,
                  platform.processor(), torch.__version__])
    path = opened.folder / "bfloat16" / f"{key}.json"
    if not path.exists():
        before = torch.get_num_threads()
        torch.set_num_threads(opened.threads)
        try:
            backbone = load_backbone(start_of(network, training), channels, 2)
            freeze(backbone.model, training.learn)
            write_json(path, {"faster": faster_in_bfloat16(backbone, shape, training.batch)})
        finally:
            torch.set_num_threads(before)
    return bool(read_json(path)["faster"])


def activations_of(opened: Opened, method: FinetunedMethod, crops: tuple[Path, str]) -> tuple[Path, str] | None:
    """Activations of all crops below what is learnt, computed where they are not there; None where they are not shared.

    Where they cannot be had (the network cannot be cut there, the disk is too small) each fold computes them anew,
    to the same end; why is noted in the stage's record.
    """
    training, network = method.training, method.network
    if not sharable(network, training):
        return None
    device = resolve_device(opened.device)
    key = digest(["activations 1", crops[1], weights_identity(network), network.model_dump(mode="json"),
                  training.learn, views_of(training), training.bfloat16 is True, device.type])
    path = opened.folder / "activations" / f"{key}.h5"
    with opened.stage("activations", key) as facts:
        facts["detail"] = "there already"
        if not path.exists():
            source = open_crops(*crops)
            with progress_bar(f"{method.name}, batches of activations below what is learnt",
                              -(-len(source) // BATCH)) as advance:
                why = store_activations(path, key, source, len(source), network, training, device, advance)
            facts["detail"] = f"not shared: {why}" if why else f"{len(source)} crops, {views_of(training)} views each"
    return (path, key) if path.exists() else None


def train_trunks(tasks: Sequence[FinetunedFold], runner: RunTasks) -> None:
    """Train what the folds of ``tasks`` share and is not there yet, one task a trunk and seed."""
    first: dict[Path, FinetunedFold] = {}
    for task in tasks:
        if task.trunk is not None and not task.trunk.path.exists():
            first.setdefault(task.trunk.path, task)
    if first:
        for _ in runner(run_trunk, list(first.values()), f"{tasks[0].method.name}, trainings that folds share"):
            pass


def remove_trunks(tasks: Sequence[FinetunedFold]) -> None:
    """Remove where shared trainings ended, once all folds are done; what they cost stays noted."""
    for path in {t.trunk.path for t in tasks if t.trunk is not None}:
        for file in (path, path.with_suffix(".checkpoint")):
            Checkpoint(file, "").remove()


def shared_cost(run: RunFolder, folds: Sequence[dict[str, Any]], epochs: int) -> dict[str, Any]:
    """What a run with shared trainings cost beside exact folds, in crops shown to the network.

    Parameters
    ----------
    folds : sequence of dict
        What was noted of each fold.

    Returns
    -------
    dict
        ``trunks``, ``seconds`` of them, ``images`` shown in all, and ``image_share`` of what exact folds would show.
    """
    trunks = [read_json(p) for p in sorted(run.path.glob("seed*-trunk-*.json"))]
    images = sum(t["images"] for t in trunks) + sum(f["images"] for f in folds)
    exact = epochs * sum(f["train"] for f in folds)
    return {"trunks": len(trunks), "seconds": round(sum(t["seconds"] for t in trunks), 2), "images": images,
            "image_share": round(images / exact, 4)}


def write_frozen_embeddings(opened: Opened, method: FrozenMethod, run: RunFolder, features: Path) -> None:
    """Write the embeddings that a method asks for and that are not there.

    Parameters
    ----------
    features : Path
        The network's features of the predicted fields; those of negative controls (and of crops) are computed here.
    """
    beside = frozen_beside(run)
    paths = {unit: embedding_path(beside, unit) for unit in method.embeddings}
    if all(path.exists() for path in paths.values()):
        return
    from benchmark.crops.reader import open_crops
    from benchmark.networks.device import resolve_device
    from benchmark.networks.weights.weights import load_backbone

    controls = bool(len(opened.assay.unscored_controls))
    caches = [crops_of(opened, method)] if "crop" in paths else []
    caches += [crops_of(opened, method, controls=True)] if controls else []
    tables = [] if "crop" in paths else [pd.read_parquet(features)]
    if caches:
        crops = [open_crops(*cache) for cache in caches]
        separately = method.channels == "separately"
        backbone = load_backbone(method.network, 3 if separately else crops[0].shape[0], 0)
        tables.append(field_embeddings([(c, c) for c in crops], opened.assay.fields, backbone,
                                       resolve_device(opened.device), separately, crop_file=paths.get("crop")))
    fields = pd.concat(tables).sort_values(FIELD_KEY, kind="stable").reset_index(drop=True)
    write_units(beside, fields, [unit for unit, path in paths.items() if not path.exists()])
