"""Embeddings of frozen networks: written once a run, since they hang on no fold."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from benchmark.methods.embeddings import embedding_path, frozen_beside, write_units
from benchmark.methods.runs import RunFolder
from benchmark.methods.settings import FrozenMethod
from benchmark.opened import Opened
from benchmark.prepare import crops_of
from benchmark.tables import FIELD_KEY


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
    from benchmark.networks.embed import field_embeddings
    from benchmark.networks.weights import load_backbone

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
