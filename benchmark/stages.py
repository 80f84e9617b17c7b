"""The stages behind `make baseline` and `make cnn`: prepare what methods start from, then run their folds."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from benchmark import __version__
from benchmark.cluster import available_cores
from benchmark.files import PROJECT, digest, read_json, write_json, write_parquet
from benchmark.methods.classifier import summarise_choices
from benchmark.methods.labels import permute_labels
from benchmark.methods.runs import RunFolder, fold_facts, open_run
from benchmark.methods.settings import (
    CLASSICAL,
    CellCountMethod,
    FinetunedMethod,
    FrozenMethod,
    MethodSettings,
    ProfileMethod,
    summary,
    transductive,
)
from benchmark.methods.tabular import TabularFold, run_tabular_fold
from benchmark.opened import Opened
from benchmark.profiles.wells import cell_counts, feature_columns, make_profiles, without_cells
from benchmark.splits import Fold, rows_of
from benchmark.tasks import run_serially

if TYPE_CHECKING:
    from benchmark.cellprofiler.measure import Measured

PACKAGES = ("torch", "torchvision", "timm", "scikit-learn", "pycytominer", "pandas", "numpy", "h5py")
ROLES = {"cell_count": "count", "profile": "classical", "cnn_frozen": "frozen", "cnn_finetuned": "finetuned"}


@dataclass(frozen=True)
class FinishedRun:
    """A method whose folds are all there."""

    method: MethodSettings
    folder: RunFolder
    record: dict[str, Any]

    @property
    def title(self) -> str:
        """For readers, from the study as it is now: a run's key and record do not hang on it."""
        return self.method.title or self.method.name


def run_baseline(opened: Opened) -> list[FinishedRun]:
    """CellProfiler over the assay, then every classical method of the study."""
    methods = [m for m in opened.study.methods if isinstance(m, CLASSICAL)]
    if not methods:
        return []
    measured = measure_assay(opened)
    facts = {"cellprofiler": measured.record["cellprofiler"]}
    return [_run_tabular(opened, m, *_classical_features(opened, m, measured), facts) for m in methods]


def run_cnn(opened: Opened) -> list[FinishedRun]:
    """Crops, then every method of the study that uses a network."""
    done = []
    for method in opened.study.methods:
        if isinstance(method, FrozenMethod):
            done.append(_run_frozen(opened, method))
        elif isinstance(method, FinetunedMethod):
            done.append(_run_finetuned(opened, method))
    return done


def measure_assay(opened: Opened) -> Measured:
    """CellProfiler's single-cell tables of the assay; shards already there are not run again."""
    from benchmark.cellprofiler.find import find_cellprofiler
    from benchmark.cellprofiler.measure import measure

    settings, found = opened.study.cellprofiler, find_cellprofiler()
    pipeline = pipeline_path(settings.pipeline, opened.base)
    key = digest([opened.assay_hash, settings.model_dump(mode="json"), found.version])
    with opened.stage("CellProfiler", key) as facts:
        measured = measure(opened.assay, opened.hashes, settings.model_copy(update={"pipeline": str(pipeline)}), found,
                           opened.folder / "measured", opened.run_tasks)
        record = measured.record
        facts["detail"] = (f"{record['fields']} fields, {record['cells']} cells, {record['shards']} shards "
                           f"({record['shards_run']} run now), "
                           f"{record['shard_cpu_seconds']:.0f} CPU seconds")
    return measured


def pipeline_path(name: str, base: Path) -> Path:
    """A pipeline's file: beside the study's file if it is there, else in the project (as shipped ones are)."""
    beside = base / name
    return beside if beside.is_file() else PROJECT / name


def _classical_features(
    opened: Opened, method: MethodSettings, measured: Measured
) -> tuple[Path, Path, str, dict[str, Any]]:
    """Files with features and with units that lack them, their unit, and what they came from."""
    record = measured.record
    inputs = {"cellprofiler": record["cellprofiler"]["version"], "pipeline": record["pipeline_digest"]}
    if isinstance(method, CellCountMethod):
        unit, settings = method.unit, {"cell_count": method.unit}
    else:
        assert isinstance(method, ProfileMethod)
        unit, settings = method.profile.unit, method.profile.model_dump(mode="json")
    key = digest([inputs, opened.assay_hash, settings])

    def build() -> pd.DataFrame:
        if isinstance(method, CellCountMethod):
            return cell_counts(measured.images(), opened.assay, unit)
        return make_profiles(measured.cells(), opened.assay, method.profile)

    features, absent = _feature_files(opened, f"profiles-{key}", unit, build)
    return features, absent, unit, inputs


def _run_frozen(opened: Opened, method: FrozenMethod) -> FinishedRun:
    """Frozen features of all scored crops, averaged over the crops of a field, and the shared classifier."""
    from benchmark.networks.weights import weights_identity

    cache = _crops(opened, method)
    inputs = {"crops": cache.stem, "weights": weights_identity(method.network)}
    key = digest([inputs, method.network.backbone, method.channels])
    facts = opened.folder / "features" / f"network-{key}.json"

    def build() -> pd.DataFrame:
        from benchmark.crops.cache import read_crops
        from benchmark.networks.features import frozen_features
        from benchmark.networks.train import resolve_device

        crops = read_crops(cache, opened.assay, opened.assay_hash, method.crops)
        values, backbone = frozen_features(crops.pixels, method.network, method.channels,
                                           resolve_device(opened.device))
        names = [f"Network_{i:05d}" for i in range(values.shape[1])]
        metadata = [c for c in crops.table.columns if c.startswith("Metadata_")]
        table = pd.concat([crops.table[metadata], pd.DataFrame(values, columns=names)], axis=1)
        write_json(facts, {"weights": backbone.source, "weights_sha256": backbone.sha256})
        return table.groupby(metadata, as_index=False, sort=True)[names].mean()

    features, absent = _feature_files(opened, f"network-{key}", "field", build)
    return _run_tabular(opened, method, features, absent, "field", inputs, read_json(facts))


def _feature_files(opened: Opened, name: str, unit: str, build: Callable[[], pd.DataFrame]) -> tuple[Path, Path]:
    """Write a feature table (scored units only) and the list of scored units it lacks, once."""
    features = opened.folder / "features" / f"{name}.parquet"
    absent = opened.folder / "features" / f"{name}-absent.parquet"
    kind, key = name.split("-", 1)
    opened.note(f"{kind} features", key)
    if not (features.exists() and absent.exists()):
        with opened.stage(f"{kind} features", key) as facts:
            table = build()
            scored = {w for fold in opened.split.folds for w in fold.test}
            table = table[rows_of(table, tuple(scored))].reset_index(drop=True)
            write_parquet(absent, without_cells(table, opened.assay, unit))
            write_parquet(features, table)
            facts["detail"] = f"{len(table)} {unit}s x {len(feature_columns(table))} features"
    return features, absent


def _crops(opened: Opened, method: FrozenMethod | FinetunedMethod) -> Path:
    """The crop cache of a method, named by its key; built where it is not there."""
    from benchmark.crops.cache import build_crops, crop_key

    key = crop_key(opened.assay_hash, method.crops)
    path = opened.folder / "crops" / f"{key}.h5"
    with opened.stage("crops", key) as facts:
        build_crops(path, opened.assay, opened.assay_hash, method.crops, opened.run_tasks)
        facts["detail"] = f"{method.crops.size} px, grid {method.crops.grid[0]}x{method.crops.grid[1]}"
    return path


def _permuted(opened: Opened, method: MethodSettings, seed: int) -> dict[str, str] | None:
    return permute_labels(opened.assay.treated, seed) if method.labels == "permuted" else None


def _run_tabular(
    opened: Opened,
    method: MethodSettings,
    features: Path,
    absent: Path,
    unit: str,
    inputs: dict[str, Any],
    facts: dict[str, Any],
) -> FinishedRun:
    """Run the folds of a method on a feature table; ``facts`` go into its record."""
    assert not isinstance(method, FinetunedMethod)
    run = open_run(opened.folder, method, opened.split, inputs)
    correlation = method.profile.correlation if isinstance(method, ProfileMethod) else None

    def task(fold: Fold, seed: int) -> TabularFold:
        return TabularFold(features, absent, unit, method.name, fold, seed, method.classifier, correlation,
                           _permuted(opened, method, seed), run.fold_path(fold, seed))

    return _finish(opened, method, run, run_tabular_fold, task, facts)


def _run_finetuned(opened: Opened, method: FinetunedMethod) -> FinishedRun:
    from benchmark.methods.finetuned import FinetunedFold, run_finetuned_fold
    from benchmark.networks.weights import weights_identity

    cache = _crops(opened, method)
    inputs = {"crops": cache.stem, "weights": weights_identity(method.network)}
    run = open_run(opened.folder, method, opened.split, inputs)

    def task(fold: Fold, seed: int) -> FinetunedFold:
        return FinetunedFold(cache, opened.assay, opened.assay_hash, method, fold, seed,
                             _permuted(opened, method, seed), opened.device, opened.threads, run.fold_path(fold, seed))

    return _finish(opened, method, run, run_finetuned_fold, task, {})


def _finish(
    opened: Opened,
    method: MethodSettings,
    run: RunFolder,
    function: Callable[[Any], str],
    task: Callable[[Fold, int], Any],
    facts: dict[str, Any],
) -> FinishedRun:
    """Run the folds that are missing, then write the run's record."""
    missing = run.missing(opened.split, opened.study.seeds)
    opened.note(f"method {method.name}", run.path.name)
    if missing:
        with opened.stage(f"method {method.name}", run.path.name) as timed:
            tasks = [task(fold, seed) for fold, seed in missing]
            runner = run_serially if _on_gpu(opened, method) else opened.run_tasks
            for _ in runner(function, tasks, f"{method.name}, by fold"):
                pass
            timed["detail"] = f"{len(missing)} folds"
    seeds = list(opened.study.seeds)
    record = read_json(run.record_path) if run.record_path.exists() else None
    if missing or record is None or record["seeds"] != seeds:
        record = _record(opened, method, run) | facts
        write_json(run.record_path, record)
    return FinishedRun(method, run, record)


def _on_gpu(opened: Opened, method: MethodSettings) -> bool:
    """Folds share one GPU, one after the other; tabular methods stay on the CPU."""
    if not isinstance(method, FinetunedMethod):
        return False
    from benchmark.networks.train import resolve_device

    return resolve_device(opened.device).type == "cuda"


def _record(opened: Opened, method: MethodSettings, run: RunFolder) -> dict[str, Any]:
    """The run's record: configuration, hashes, versions, what ran it and what it cost."""
    folds = fold_facts(run, opened.split, opened.study.seeds)
    record: dict[str, Any] = {
        **run.config,
        "name": method.name,
        "role": ROLES[method.kind],
        "control": method.labels == "permuted",
        "transductive": transductive(method),
        "seeds": list(opened.study.seeds),
        "folds": len(opened.split.folds),
        "summary": summary(method),
        "seconds": round(sum(f["seconds"] for f in folds), 2),
        "peak_mib": max(f["peak_mib"] for f in folds),
        "device": ", ".join(sorted({f["device"] for f in folds})),
        "machine": f"{platform.system()} {platform.machine()}, {available_cores()} cores",
        "versions": versions(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "run": run.path.name,
    }
    if "chosen" in folds[0]:
        record["choices"] = summarise_choices([f["chosen"] for f in folds])
        record["features"] = folds[0]["features"]
        record["without_features"] = sum(f["without_features"] for f in folds)
    if "weights" in folds[0]:
        record["weights"], record["weights_sha256"] = folds[0]["weights"], folds[0]["weights_sha256"]
        record["final_losses"] = [round(f["losses"][-1], 4) for f in folds]
    return record


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Versions of Python, morphobench and the packages that make the numbers."""
    found = {"python": platform.python_version(), "morphobench": __version__}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found

