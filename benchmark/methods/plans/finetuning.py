"""What all folds of a fine-tuned network share: crops, activations below what is learnt, trainings they start from."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.base.files import digest, once, read_json
from benchmark.base.tasks import RunTasks, progress_bar
from benchmark.folds.fold import Fold
from benchmark.folds.trunks import make_trunks, trunk_of, trunks_hash
from benchmark.methods.base import keyed
from benchmark.methods.context import Plan
from benchmark.methods.workers.runs import FoldFacts, RunFolder
from benchmark.networks.training.start import sharable, start_of, views_of
from benchmark.networks.weights.location import weights_identity

if TYPE_CHECKING:
    from benchmark.methods.context import Context
    from benchmark.methods.kinds.finetuned import FinetunedMethod
    from benchmark.methods.workers.finetuned import FinetunedFold


def finetuned_plan(method: FinetunedMethod, context: Context) -> Plan:
    """How the folds of a fine-tuned network run; its crops, and what else they share, are made on the way.

    Raises
    ------
    LeakError
        A shared training would see what one of its folds tests.
    MorphobenchError
        Crops cannot be made, or nothing can be shared that the study wants shared.
    """
    where = f"the method {method.name}"
    crops = context.crops(method.crops, where)
    method = with_precision(context, method, crops)
    inputs = {"crops": crops[1], "weights": weights_identity(start_of(method.network, method.training))}
    trunks = make_trunks(context.split, context.assay) if method.training.folds == "shared" else ()
    if trunks:
        inputs["trunks"] = trunks_hash(trunks)
    activations = activations_of(context, method, crops)
    controls = None
    if method.embeddings and len(context.assay.unscored_controls):
        controls = context.crops(method.crops, where, controls=True)

    def task(run: RunFolder, fold: Fold, seed: int) -> FinetunedFold:
        from benchmark.methods.workers.finetuned import FinetunedFold, SharedTrunk

        trunk = None
        if trunks:
            own = trunk_of(trunks, fold.name)
            trunk = SharedTrunk(own, run.path / f"seed{seed}-{own.name}.trunk")
        return FinetunedFold(*crops, context.assay, method, fold, seed, method.permuted(context, seed), context.device,
                             context.threads, run.fold_path(fold, seed), activations, trunk, controls,
                             method.network.architecture.home)

    def before(run: RunFolder, missing: Sequence[tuple[Fold, int]]) -> None:
        if trunks and missing:
            train_trunks([task(run, *one) for one in missing], context.runner(method))

    def after(run: RunFolder, missing: Sequence[tuple[Fold, int]]) -> None:
        if trunks and missing:
            remove_trunks([task(run, *one) for one in missing])

    def summarise(run: RunFolder, folds: Sequence[FoldFacts]) -> Mapping[str, Any]:
        return finetuned_facts(run, folds, method.training.epochs)

    return Plan(keyed(method, context, inputs), finetuned_worker, task, before=before, after=after,
                summarise=summarise, around=owner_of_crops)


def finetuned_worker() -> Callable[[FinetunedFold], str]:
    """What runs a fold; PyTorch is loaded with it."""
    from benchmark.methods.workers.finetuned import run_finetuned_fold

    return run_finetuned_fold


def owner_of_crops() -> AbstractContextManager[None]:
    """What keeps the crops that folds of this process share in memory; PyTorch is loaded with it."""
    from benchmark.networks.feed.held import held_crops

    return held_crops()


def finetuned_facts(run: RunFolder, folds: Sequence[FoldFacts], epochs: int) -> dict[str, Any]:
    """What the record of a fine-tuned network says of its folds."""
    first = folds[0].more
    facts = {"weights": first["weights"], "weights_sha256": first["weights_sha256"],
             "without_crops": sum(f.more["without_crops"] for f in folds),
             "final_losses": [round(f.more["losses"][-1], 4) for f in folds]}
    if "trunk" in first:
        facts["shared"] = shared_cost(run, folds, epochs)
    return facts


def with_precision(context: Context, method: FinetunedMethod, crops: tuple[Path, str]) -> FinetunedMethod:
    """The method with ``bfloat16: auto`` decided: what is faster on this CPU is tried once, and kept for all folds.

    Folds that each tried for themselves might come to different answers, and a study would mix precisions.
    """
    training = method.training
    if training.bfloat16 != "auto":
        return method
    from benchmark.networks.device import resolve_device

    device = resolve_device(context.device)
    faster = device.type == "cpu" and _faster(context, method, crops)
    return method.model_copy(update={"training": training.model_copy(update={"bfloat16": faster})})


def _faster(context: Context, method: FinetunedMethod, crops: tuple[Path, str]) -> bool:
    import torch

    from benchmark.crops.reader import open_crops
    from benchmark.networks.training.learn import freeze
    from benchmark.networks.training.step import faster_in_bfloat16
    from benchmark.networks.weights.weights import load_backbone

    training, network = method.training, method.network
    shape: tuple[int, ...] = open_crops(*crops).shape
    channels = shape[0]
    if network.bagged:
        shape = (network.bag_size, *shape)
    key = digest([network.model_dump(mode="json"), training.learn, training.batch, shape, context.threads,
                  platform.processor(), torch.__version__])

    def measure() -> dict[str, bool]:
        before = torch.get_num_threads()
        torch.set_num_threads(context.threads)
        try:
            backbone = load_backbone(start_of(network, training), channels, 2)
            freeze(backbone.model, training.learn)
            return {"faster": faster_in_bfloat16(backbone, shape, training.batch)}
        finally:
            torch.set_num_threads(before)

    return bool(read_json(once(context.folder / "bfloat16" / f"{key}.json", measure))["faster"])


def activations_of(context: Context, method: FinetunedMethod, crops: tuple[Path, str]) -> tuple[Path, str] | None:
    """Activations of all crops below what is learnt, computed where they are not there; None where they are not shared.

    Where they cannot be had (the network cannot be cut there, the disk is too small) each fold computes them anew,
    to the same end; why is noted in the stage's record.
    """
    training, network = method.training, method.network
    if not sharable(network, training):
        return None
    from benchmark.crops.reader import open_crops
    from benchmark.networks.device import resolve_device
    from benchmark.networks.feed.activations import BATCH, store_activations

    device = resolve_device(context.device)
    key = digest(["activations 1", crops[1], weights_identity(network), network.model_dump(mode="json"),
                  training.learn, views_of(training), training.bfloat16 is True, device.type])
    path = context.folder / "activations" / f"{key}.h5"
    with context.stage("activations", key) as facts:
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
    from benchmark.methods.workers.finetuned import run_trunk

    first: dict[Path, FinetunedFold] = {}
    for task in tasks:
        if task.trunk is not None and not task.trunk.path.exists():
            first.setdefault(task.trunk.path, task)
    if first:
        for _ in runner(run_trunk, list(first.values()), f"{tasks[0].method.name}, trainings that folds share"):
            pass


def remove_trunks(tasks: Sequence[FinetunedFold]) -> None:
    """Remove where shared trainings ended, once all folds are done; what they cost stays noted."""
    from benchmark.networks.training.checkpoint import Checkpoint

    for path in {t.trunk.path for t in tasks if t.trunk is not None}:
        for file in (path, path.with_suffix(".checkpoint")):
            Checkpoint(file, "").remove()


def shared_cost(run: RunFolder, folds: Sequence[FoldFacts], epochs: int) -> dict[str, Any]:
    """What a run with shared trainings cost beside exact folds, in crops shown to the network.

    Parameters
    ----------
    folds : sequence of FoldFacts
        What was noted of each fold.

    Returns
    -------
    dict
        ``trunks``, ``seconds`` of them, ``images`` shown in all, and ``image_share`` of what exact folds would show.
    """
    trunks = [read_json(p) for p in sorted(run.path.glob("seed*-trunk-*.json"))]
    images = sum(t["images"] for t in trunks) + sum(f.more["images"] for f in folds)
    exact = epochs * sum(f.more["train"] for f in folds)
    return {"trunks": len(trunks), "seconds": round(sum(t["seconds"] for t in trunks), 2), "images": images,
            "image_share": round(images / exact, 4)}
