"""Embeddings of a frozen network beside its run, and the classical arm on embeddings of wells, fold by fold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from benchmark.base.files import once
from benchmark.base.tables import FIELD_KEY, WELL_KEY
from benchmark.folds.fold import Fold, rows_of
from benchmark.methods.base import keyed
from benchmark.methods.context import Plan
from benchmark.methods.plans.tabular import refuse_nearest_wells, tabular_facts, tabular_worker
from benchmark.methods.versions import PROFILES
from benchmark.methods.workers.runs import RunFolder
from benchmark.methods.workers.source import ProfileSource
from benchmark.profiles.wells import without_cells

if TYPE_CHECKING:
    from benchmark.methods.context import Context, FinishedRun
    from benchmark.methods.kinds.embedding import EmbeddingMethod
    from benchmark.methods.kinds.frozen import FrozenMethod
    from benchmark.methods.workers.tabular import TabularFold


def write_frozen_embeddings(method: FrozenMethod, context: Context, run: RunFolder, features: Path) -> None:
    """Write the embeddings that a method asks for and that are not there.

    Parameters
    ----------
    features : Path
        The network's features of the predicted fields; those of negative controls (and of crops) are computed here.
    """
    from benchmark.methods.workers.embeddings import embedding_path, frozen_beside, write_units

    beside = frozen_beside(run)
    paths = {unit: embedding_path(beside, unit) for unit in method.embeddings}
    if all(path.exists() for path in paths.values()):
        return
    from benchmark.crops.reader import open_crops
    from benchmark.networks.device import resolve_device
    from benchmark.networks.embed import field_embeddings
    from benchmark.networks.weights.weights import load_backbone

    where = f"the method {method.name}"
    controls = bool(len(context.assay.unscored_controls))
    caches = [context.crops(method.crops, where)] if "crop" in paths else []
    caches += [context.crops(method.crops, where, controls=True)] if controls else []
    tables = [] if "crop" in paths else [pd.read_parquet(features)]
    if caches:
        crops = [open_crops(*cache) for cache in caches]
        separately = method.channels == "separately"
        backbone = load_backbone(method.network, 3 if separately else crops[0].shape[0], 0)
        tables.append(field_embeddings([(c, c) for c in crops], context.assay.fields, backbone,
                                       resolve_device(context.device), separately, crop_file=paths.get("crop")))
    fields = pd.concat(tables).sort_values(FIELD_KEY, kind="stable").reset_index(drop=True)
    write_units(beside, fields, [unit for unit, path in paths.items() if not path.exists()])


def embedding_plan(method: EmbeddingMethod, context: Context, part: FinishedRun) -> Plan:
    """How the classical arm runs, fold by fold on the embeddings of the same fold's network."""
    if method.decision == "nearest":
        refuse_nearest_wells(context, method)
    inputs = {"of": part.folder.path.name, "classical": PROFILES}

    def before(run: RunFolder, missing: Sequence[tuple[Fold, int]]) -> None:
        once(run.path / "absent.parquet", lambda: _without_crops(context, part))

    def task(run: RunFolder, fold: Fold, seed: int) -> TabularFold:
        from benchmark.methods.workers.tabular import TabularFold

        source = ProfileSource(part.method.embedding_path(part.folder, fold, seed, "well"), method.profile.whole,
                               embedded=True)
        return TabularFold(source, run.path / "absent.parquet", "well", method.name, fold, seed, method.classifier,
                           method.decision, method.permuted(context, seed), tuple(context.assay.labels), True,
                           run.fold_path(fold, seed))

    return Plan(keyed(method, context, inputs), tabular_worker, task, before=before, summarise=tabular_facts)


def _without_crops(context: Context, part: FinishedRun) -> pd.DataFrame:
    """Wells to predict that have no crops, and so no embedding: the same in all folds."""
    path = part.method.embedding_path(part.folder, context.split.folds[0], context.seeds[0], "well")
    lacking = without_cells(pd.read_parquet(path, columns=WELL_KEY), context.assay.predicted, "well")
    wanted = tuple(context.assay.predicted[WELL_KEY].drop_duplicates().itertuples(index=False, name=None))
    return lacking[rows_of(lacking, wanted)] if len(lacking) else lacking
