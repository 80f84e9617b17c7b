"""The grid of a study: every table of profiles under every correction, decision and scheme of folds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from benchmark.assays.fieldtable import Assay
from benchmark.base.combinations import GRID_PARTS
from benchmark.base.errors import LeakError, MorphobenchError
from benchmark.base.files import digest, once, read_json, safe_name, write_json
from benchmark.base.tables import BATCH, CONTROL, LABEL
from benchmark.evaluation.metrics import summarise_grid
from benchmark.evaluation.units import counted_unit
from benchmark.folds.fold import Split
from benchmark.folds.make import study_split
from benchmark.methods.context import Features
from benchmark.methods.grid import GridFold, GridSettings
from benchmark.methods.versions import PROFILES
from benchmark.methods.workers.featurefacts import feature_ranges
from benchmark.profiles.settings import Correction, ProfileSettings
from benchmark.profiles.words import profile_words
from benchmark.workflow.context import StudyContext
from benchmark.workflow.measured import pipeline_of
from benchmark.workflow.tables import profile_features

#: Raised when the grid's code changes what it predicts.
GRID_REVISION = 2
#: The same of reproducibility.
REPRODUCIBILITY = 2
#: What the page reads of a grid's table, for one in which nothing applies.
COLUMNS = ["scheme", *GRID_PARTS, "unit", "n", "correct", "accuracy", "low", "high", "chance"]


@dataclass(frozen=True)
class Grid:
    """A finished grid.

    Attributes
    ----------
    table : DataFrame
        One row a scheme and combination; see `benchmark.evaluation.metrics.summarise_grid`.
    skipped : tuple of str
        What the study asks for and the assay cannot give, with the reason, a sentence each.
    unscored : tuple of str
        What each scheme leaves out of its denominator, a sentence each.
    facts : list of dict
        ``profile, normalise, correction, scheme, fold`` and what the correction was fitted on.
    reproducibility : DataFrame
        One row a table of profiles: `benchmark.evaluation.reproducibility.reproducibility`.
    rows : list of dict
        ``profile, normalise, correction``, how the three are made in ``words``, and what they estimate from test wells
        without labels, in words (``transductive``, '' where nothing is).
    features : list of dict
        ``scheme, profile, normalise`` and what became of the features, as a range over the folds (``ranges``).
    """

    table: pd.DataFrame
    skipped: tuple[str, ...]
    unscored: tuple[str, ...]
    facts: list[dict[str, Any]]
    reproducibility: pd.DataFrame
    rows: list[dict[str, str]]
    features: list[dict[str, Any]] = field(default_factory=list)


def run_grid(context: StudyContext) -> Grid | None:
    """Run what is missing of the study's grid, and summarise it; None where the study has none."""
    grid = context.study.grid
    if grid is None:
        return None
    plan = applicable(context.assay, grid)
    unit = counted_unit(context.assay.scoring)
    tasks: list[tuple[str, tuple[str, str], GridFold]] = []
    unscored: list[str] = []
    replicates: list[dict[str, Any]] = []
    splits, infeasible = _splits(context, plan.schemes)
    for scheme, split in splits.items():
        unscored += [f"{scheme}: {u}" for u in split.unscored]
    for name, how, profile in tables_of(grid, plan):
        found = profile_features(context, profile, f"grid.profiles.{name}")
        if not profile.fold_wise:
            replicates.append({"profile": name, "normalise": how} | _reproducibility(context, found))
        for scheme, split in splits.items():
            folder = _folder(context, grid, found, split, plan.corrections, (name, how))
            for fold in split.folds:
                out = folder / f"{safe_name(fold.name)}.parquet"
                tasks.append((scheme, (name, how), GridFold(
                    found.source, found.absent, (name, how), plan.corrections, grid.decisions, grid.inner_folds, fold,
                    context.seeds[0], tuple(context.assay.labels), unit, out)))
    missing = [t for _, _, t in tasks if not t.out.exists()]
    key = digest([[s, n, str(t.out.parent.name)] for s, n, t in tasks])
    context.note("grid", key)
    if missing:
        from benchmark.methods.workers.gridfold import run_grid_fold  # late: scikit-learn, where something is to do

        with context.stage("grid", key) as facts:
            for _ in context.run_tasks(run_grid_fold, missing, "grid (profiles x folds)"):
                pass
            facts["detail"] = f"{len(missing)} folds of {len(grid.tables())} tables of profiles"
    return Grid(_summary(tasks, unit), (*plan.skipped, *infeasible), tuple(dict.fromkeys(unscored)), _facts(tasks),
                pd.DataFrame(replicates), _rows(context, grid, plan), _features(tasks))


def _rows(context: StudyContext, grid: GridSettings, plan: Applicable) -> list[dict[str, str]]:
    """What each row of the grid is, and what of it is transductive."""
    rows = []
    for name, how, profile in tables_of(grid, plan):
        lit = context.measured_pixels(pipeline_of(profile))
        for correction in plan.corrections:
            whole = profile.model_copy(update={"correction": correction})
            rows.append({"profile": name, "normalise": how, "correction": correction,
                         "words": profile_words(whole, context.program(pipeline_of(profile)), cut=True),
                         "transductive": "; ".join(t for t in (lit, whole.transductive) if t)})
    return rows


def _reproducibility(context: StudyContext, found: Features) -> dict[str, Any]:
    """Whether replicates look alike in a table of profiles, computed once."""
    seed = context.seeds[0]

    def compute() -> dict[str, Any]:
        from benchmark.evaluation.reproducibility import reproducibility  # late: scikit-learn, where something is new

        table = pd.read_parquet(found.source.table)
        if context.assay.scoring == "controls":  # no control serves as one there
            table = table[table[LABEL] != ""].assign(**{CONTROL: ""})
        return reproducibility(table, seed)

    name = f"{found.source.table.stem}-reproducibility-{REPRODUCIBILITY}-{seed}.json"
    return dict(read_json(once(found.source.table.with_name(name), compute)))


@dataclass(frozen=True)
class Applicable:
    """What of a grid the assay can give, and why the rest is not there."""

    normalise: tuple[str, ...]
    corrections: tuple[Correction, ...]
    schemes: tuple[Any, ...]
    without: frozenset[str]
    skipped: tuple[str, ...]


def applicable(assay: Assay, grid: GridSettings) -> Applicable:
    """Leave out of a grid what needs controls where there are none (or they are what is scored), or batches."""
    skipped: list[str] = []
    scored = assay.scoring == "controls"
    controls = not scored and bool((assay.fields[CONTROL] == "negative").any())
    why = "controls are what is scored" if scored else "there are no negative controls"
    batches = assay.fields[BATCH].nunique() > 1

    def keep(what: str, names: Sequence[Any], needs: Any, there: bool, reason: str) -> tuple[Any, ...]:
        gone = [n for n in names if needs(n) and not there]
        skipped.extend(f"{what} {n}: {reason}" for n in gone)
        return tuple(n for n in names if n not in gone)

    normalise = keep("normalise", grid.normalise, lambda n: n.startswith("controls"), controls, why)
    by_controls = ("sphering", "tvn", "combat") if scored else ("sphering", "tvn")
    corrections = keep("correction", grid.corrections, lambda n: n in by_controls, controls, why)
    corrections = keep("correction", corrections, lambda n: n in ("combat", "harmony", "tvn"), batches,
                       "there is one batch")
    schemes = keep("scheme", grid.schemes, lambda n: "batch" in n, batches, "there is one batch")
    profiles = keep("profile", tuple(grid.profiles),
                    lambda n: bool(grid.profiles[n].model_copy(update={"normalise": "training"}).uses_controls),
                    controls, why)
    imaged = assay.features is None
    profiles = keep("profile", profiles, lambda n: grid.profiles[n].source == "whole_field", imaged,
                    "there are no images")
    return Applicable(normalise, corrections, schemes, frozenset(set(grid.profiles) - set(profiles)), tuple(skipped))


def _splits(context: StudyContext, schemes: Sequence[Any]) -> tuple[dict[Any, Split], list[str]]:
    """The folds of each scheme that the assay has folds for, and why it has none for the others."""
    found, why = {}, []
    for scheme in schemes:
        try:
            found[scheme] = _split(context, scheme)
        except LeakError:
            raise
        except MorphobenchError as error:  # too few compounds, cell lines or batches, or nothing left to tell
            why.append(f"scheme {scheme}: {error.fault.what}")
    return found, why


def tables_of(grid: GridSettings, plan: Applicable) -> list[tuple[str, str, ProfileSettings]]:
    """The tables of profiles that are made: `GridSettings.tables` without what the assay cannot give."""
    return [(name, how, profile) for name, how, profile in grid.tables()
            if how in plan.normalise and name not in plan.without]


def _split(context: StudyContext, scheme: Any) -> Split:
    """The folds of a scheme: the study's own, or another one's, audited alike."""
    if scheme == context.split.scheme:
        return context.split
    path = context.folder / "splits" / f"{digest([context.assay_hash, scheme])}.json"
    return study_split(path, context.assay, context.assay_hash, scheme, context.fields.used.hashes)


def _folder(context: StudyContext, grid: GridSettings, found: Features, split: Split,
            corrections: tuple[Correction, ...], name: tuple[str, str]) -> Path:
    """``runs/<study>/grid/<key>``: the key hashes all that the predictions of one table and scheme depend on."""
    config = {
        "revision": [GRID_REVISION, PROFILES],
        "name": name,
        "profile": found.source.profile.model_dump(mode="json"),
        "inputs": found.inputs,
        "corrections": corrections,
        "decisions": grid.decisions,
        "inner_folds": grid.inner_folds,
        "seed": context.seeds[0],
        "assay_hash": context.assay_hash,
        "split_hash": split.hash,
    }
    folder = context.folder / "grid" / digest(config)
    if not (folder / "config.json").exists():
        write_json(folder / "config.json", config)
    return folder


def _summary(tasks: list[tuple[str, tuple[str, str], GridFold]], unit: Any) -> pd.DataFrame:
    schemes = list(dict.fromkeys(scheme for scheme, _, _ in tasks))
    parts = []
    for scheme in schemes:
        tables = [pd.read_parquet(t.out) for s, _, t in tasks if s == scheme]
        parts.append(summarise_grid(pd.concat(tables, ignore_index=True), unit).assign(scheme=scheme))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS)


def _facts(tasks: list[tuple[str, tuple[str, str], GridFold]]) -> list[dict[str, Any]]:
    found = []
    for scheme, (profile, normalise), task in tasks:
        facts = read_json(task.out.with_suffix(".json"))
        found += [{"scheme": scheme, "profile": profile, "normalise": normalise, "correction": correction,
                   "fold": task.fold.name, **of} for correction, of in facts["corrections"].items() if of]
    return found


def _features(tasks: list[tuple[str, tuple[str, str], GridFold]]) -> list[dict[str, Any]]:
    """What became of the features of each table and scheme; nothing of folds that an earlier version ran."""
    folds: dict[tuple[str, str, str], list[Any]] = {}
    for scheme, (profile, normalise), task in tasks:
        facts = read_json(task.out.with_suffix(".json"))
        folds.setdefault((scheme, profile, normalise), []).append(facts.get("features"))
    return [{"scheme": scheme, "profile": profile, "normalise": normalise, "ranges": feature_ranges(of)}
            for (scheme, profile, normalise), of in folds.items()]
