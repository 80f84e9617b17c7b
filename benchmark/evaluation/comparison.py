"""All runs of a study side by side: plain tables that the page and the terminal show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pandas as pd

from benchmark.base.errors import LeakError, MorphobenchError
from benchmark.base.tables import (
    CELL_LINE,
    COMPOUND,
    CONCENTRATION,
    LABEL,
    TREATMENT_KEY,
    UNIT_KEY,
    WELL,
    WELL_KEY,
    check_predictions,
    labels_of,
)
from benchmark.evaluation.aggregate import reduce_to, with_cell_line
from benchmark.evaluation.dose import DoseResponse, dose_response, positive_label
from benchmark.evaluation.metrics import FEWEST_CLUSTERS, REPORTED, confusion, summarise
from benchmark.evaluation.seeds import Spread, paired_spread, spread_table
from benchmark.evaluation.statistics import aligned, pairwise

#: Kinds of contestant; the report's headline sets ``finetuned`` against ``classical``.
ROLES = ("count", "baseline", "classical", "frozen", "finetuned", "embedding", "fusion", "control", "other")


@dataclass(frozen=True)
class Run:
    """One method's predictions on one study, and how they came about.

    Attributes
    ----------
    name : str
        Short and unique in the study; the ``method`` of its predictions is replaced by it.
    title : str
        For headings; falls back to the name.
    record : dict
        JSON-able run record. Read here: ``assay_hash``, ``split_hash`` (runs are compared only where both
        are equal), ``control`` (permuted labels: shown, never tested against the methods), ``role`` (one of
        `ROLES`; ``other`` where it is missing), ``transductive`` (list of str) and ``ensemble_of`` (the method
        whose seeds it averages).
    predictions : DataFrame
        Prediction table of all folds, one or several seeds.
    response : DataFrame
        Predictions of the unlabelled dose series, with ``Metadata_Control`` in both tables; empty without one.
    """

    name: str
    title: str
    record: dict[str, Any]
    predictions: pd.DataFrame
    response: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def control(self) -> bool:
        """Trained on permuted labels, to show what chance looks like."""
        return bool(self.record.get("control", False))

    @property
    def role(self) -> str:
        """What kind of contestant this is, by its record: one of `ROLES`, ``other`` where the record has none."""
        if self.control:
            return "control"
        role = str(self.record.get("role", ""))
        return role if role in ROLES else "other"


@dataclass(frozen=True)
class Comparison:
    """The result of `compare`: every number that a report shows.

    Attributes
    ----------
    methods : tuple of str
        Run names, controls last.
    titles : dict of str to str
        Heading of each method.
    roles : dict of str to str
        Kind of each method, one of `ROLES`.
    baselines : dict of str to str
        Methods of the role ``baseline``: the one thing that each looks at (``intensity``, ``position``, ``batch``).
    fusions : dict of str to tuple of str
        Methods of the role ``fusion``: the methods that each is made of.
    controls, transductive : frozenset of str
        Permuted-label runs; runs that used unlabelled test data for a normalisation or correction.
    labels : tuple of str
        Scored labels, sorted.
    unit : str
        Unit that the comparison is based on: ``treatment``, or ``well`` where only controls are scored.
    seeds : dict of str to int
        The seed whose outcomes and confusions are shown for each method: its lowest.
    ensembles : dict of str to str
        Runs that are ensembles over seeds, and the method that each is one of.
    spread : Spread
        How much results vary between seeds; no rows where each method has one seed.
    accuracy : DataFrame
        As `benchmark.evaluation.metrics.summarise`, with ``title`` and ``control``; ordered by unit
        (treatment, well, field; none coarser than ``unit``), then method.
    pairs : DataFrame
        As `benchmark.evaluation.statistics.pairwise`; controls left out.
    confusions : dict of str to DataFrame
        Units by true (rows) and predicted label (columns), at the method's seed.
    outcomes : DataFrame
        One row per unit, ordered by label, compound, concentration: ``Metadata_Compound, Metadata_Concentration,
        Metadata_CellLine, Metadata_Label``, plate and well where the unit has them, and for each method a nullable
        boolean: correct or not.
    folds : DataFrame
        ``fold``, the held-out ``compounds``, ``cell_lines`` and ``labels`` (lists of str), and numbers of
        ``treatments``, ``wells`` and ``dose_wells`` (predicted, not scored).
    doses : DoseResponse or None
        Where runs predict a dose series.
    program : str
        What measured the classical profiles: ``CellProfiler`` or ``cp_measure``.
    notes : tuple of str
        What a reader must know about how the comparison was made (seeds, methods without fields).
    """

    methods: tuple[str, ...]
    titles: dict[str, str]
    roles: dict[str, str]
    baselines: dict[str, str]
    fusions: dict[str, tuple[str, ...]]
    controls: frozenset[str]
    transductive: frozenset[str]
    labels: tuple[str, ...]
    unit: str
    seeds: dict[str, int]
    ensembles: dict[str, str]
    spread: Spread
    accuracy: pd.DataFrame
    pairs: pd.DataFrame
    confusions: dict[str, pd.DataFrame]
    outcomes: pd.DataFrame
    folds: pd.DataFrame
    doses: DoseResponse | None = None
    program: str = "CellProfiler"
    notes: tuple[str, ...] = field(default=())

    def score(self, method: str, unit: str = "") -> pd.Series | None:
        """The accuracy row of a method at its shown seed (by `unit`), or None where it does not predict the unit."""
        table = self.accuracy
        rows = table[
            (table["method"] == method) & (table["unit"] == (unit or self.unit)) & (table["seed"] == self.seeds[method])
        ]
        return rows.iloc[0] if len(rows) else None

    def pair(self, a: str, b: str) -> pd.Series | None:
        """The row of `pairs` for two methods, in either order, or None."""
        table = self.pairs
        rows = table[
            ((table["method_a"] == a) & (table["method_b"] == b))
            | ((table["method_a"] == b) & (table["method_b"] == a))
        ]
        return rows.iloc[0] if len(rows) else None


def _check_runs(runs: Sequence[Run]) -> None:
    """Refuse runs that cannot be compared: duplicate names, malformed tables, different assays or folds."""
    if not runs:
        raise MorphobenchError("has no finished run to compare", "study", "Run `make baseline` or `make cnn` first.")
    names = [run.name for run in runs]
    duplicates = sorted({n for n in names if names.count(n) > 1})
    if duplicates:
        raise MorphobenchError(f"holds several runs named {', '.join(duplicates)}", "study")
    first = runs[0]
    for run in runs:
        check_predictions(run.predictions, f"predictions of {run.name}")
        for key, error in (("assay_hash", MorphobenchError), ("split_hash", LeakError)):
            if not run.record.get(key):
                raise MorphobenchError(f"has no {key} in its record", run.name, "Run it again.")
            if run.record[key] != first.record.get(key):
                what = "images" if key == "assay_hash" else "folds"
                raise error(f"have different {key}es ({first.record.get(key)} and {run.record[key]}): not the same "
                            f"{what}", f"{first.name} and {run.name}", "Run the stale one again.")


def _check_units(runs: Sequence[Run], reduced: dict[str, dict[str, pd.DataFrame]]) -> None:
    """Every two methods must cover the same units, at each unit that both reach, with equal true labels.

    A permuted-label run has other true labels by design; its units must still be the same.
    """
    for unit in REPORTED:
        having = [r for r in runs if unit in reduced[r.name]]
        for run in having[1:]:
            first = having[0]
            a, b = (_one_seed(reduced[r.name][unit]) for r in (first, run))
            if first.control or run.control:
                a, b = a.assign(**{LABEL: ""}), b.assign(**{LABEL: ""})
            aligned(a, b, unit, (first.name, run.name))


def _one_seed(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["seed"] == table["seed"].min()]


def _outcomes(reduced: dict[str, dict[str, pd.DataFrame]], methods: Sequence[str], unit: str) -> pd.DataFrame:
    """Whether each method (columns) is correct on each unit (rows)."""
    # Labels are those of the first method, which is a permuted-label run only if all are.
    key = UNIT_KEY[unit]
    table = _one_seed(reduced[methods[0]][unit])[list(dict.fromkeys([*key, *TREATMENT_KEY, LABEL]))]
    for name in methods:
        right = _one_seed(reduced[name][unit]).set_index(key)["correct"].astype("boolean")
        table = table.join(right.rename(name), on=key)
    order = [LABEL, COMPOUND, CELL_LINE, CONCENTRATION]
    return table.sort_values([*order, *key], kind="stable").reset_index(drop=True)


def _fold_table(predictions: pd.DataFrame, response: pd.DataFrame) -> pd.DataFrame:
    """What each fold holds out, as read from its predictions."""
    rows = []
    by_fold = response.groupby("fold") if len(response) else ()
    doses = {fold: len(table[WELL_KEY].drop_duplicates()) for fold, table in by_fold}
    for fold, table in _one_seed(predictions).groupby("fold", sort=True):
        rows.append({
            "fold": fold,
            "compounds": sorted(table[COMPOUND].unique()),
            "cell_lines": sorted(set(table[CELL_LINE]) - {""}),
            "labels": sorted(table[LABEL].unique()),
            "treatments": len(table[TREATMENT_KEY].drop_duplicates()),
            # A run that predicts only treatments does not say which wells they are from.
            "wells": len(table[WELL_KEY].drop_duplicates()) if WELL in table else None,
            "dose_wells": doses.get(fold, 0),
        })
    return pd.DataFrame(rows)


def _notes(methods: Sequence[Run], accuracy: pd.DataFrame, pairs: pd.DataFrame, unit: str) -> tuple[str, ...]:
    notes = []
    seeds = {run.name: sorted(int(s) for s in run.predictions["seed"].unique()) for run in methods}
    if any(len(s) > 1 for s in seeds.values()):
        used = ", ".join(map(str, sorted(set(pairs["seed"])))) or "none"
        notes.append(
            "Some methods were run with several seeds. Accuracies are listed for every seed; two methods are "
            f"tested against each other at the first seed that both have (here: {used}); the heat map and the "
            "confusion matrices show each method's lowest seed."
        )
    for finer, coarser in (("field", "well"), ("well", "treatment")):
        having, reach = (set(accuracy.loc[accuracy["unit"] == u, "method"]) for u in (finer, coarser))
        lacking = [run.title or run.name for run in methods if run.name in reach - having]
        if lacking and having:
            notes.append(f"No accuracy of {finer}s for {', '.join(lacking)}: predicted by {coarser}.")
    tied = accuracy[(accuracy["n_tied"] > 0) & (accuracy["unit"] == unit)]
    for row in tied.itertuples():
        notes.append(
            f"{row.title}: {row.n_tied} of {row.n} {unit}s had two labels with equal highest probability "
            "(the first in alphabetical order was taken)."
        )
    if unit == "well":
        notes.append(
            "Only control wells are scored, and there are few treatments of them, so the comparison is by well. The "
            "wells of one compound (or cell line) are predicted by the same fitted model and are not "
            "independent: what the intervals and tests say about wells on this plate does not carry over to another."
        )
    if len(accuracy) and accuracy["cluster_low"].isna().all():
        notes.append(
            f"No interval that resamples compounds (–): fewer than {FEWEST_CLUSTERS} compounds are scored, too few to "
            "resample."
        )
    return tuple(notes)


def _doses(runs: Sequence[Run]) -> DoseResponse | None:
    """Dose response of the runs that predict a dose series; the positive label is that of the first of them.

    None where all of them have permuted labels.
    """
    having = [run for run in runs if len(run.response)]
    if not having or having[0].control:  # controls come last, and their labels are not the wells' own
        return None
    return dose_response(
        [run.predictions.assign(method=run.name) for run in having],
        [run.response.assign(method=run.name) for run in having],
        positive_label([having[0].predictions]),
    )


def compare(runs: Sequence[Run], unit: Literal["treatment", "well"] = "treatment") -> Comparison:
    """Compare the runs of a study.

    Parameters
    ----------
    runs : sequence of Run
        In the order in which tables and figures show them; controls are moved to the end.
    unit : {'treatment', 'well'}
        Unit by which methods are compared: ``well`` where only controls are scored, which have few treatments.

    Returns
    -------
    Comparison

    Raises
    ------
    LeakError
        The runs used different folds (``split_hash``).
    MorphobenchError
        There is no run; a prediction table is malformed; the runs used different assays
        (``assay_hash``), cover different fields, wells or treatments, or disagree in true labels.
    """
    runs = [replace(run, predictions=with_cell_line(run.predictions)) for run in runs]
    _check_runs(runs)
    ordered = sorted(runs, key=lambda run: run.control)
    tables = {run.name: run.predictions.assign(method=run.name) for run in ordered}
    reported = REPORTED[REPORTED.index(unit) :]
    reduced = {
        name: {u: r for u in reported if (r := reduce_to(table, u)) is not None} for name, table in tables.items()
    }
    _check_units(ordered, reduced)
    titles = {run.name: run.title or run.name for run in ordered}
    controls = frozenset(run.name for run in ordered if run.control)
    accuracy = pd.concat([summarise(table, reported) for table in tables.values()], ignore_index=True)
    accuracy.insert(1, "title", accuracy["method"].map(titles))
    accuracy["control"] = accuracy["method"].isin(controls)
    rank = {u: i for i, u in enumerate(REPORTED)}
    accuracy = accuracy.sort_values("unit", key=lambda s: s.map(rank), kind="stable").reset_index(drop=True)
    tested = {n: r[unit] for n, r in reduced.items() if n not in controls}
    pairs = pairwise(tested, unit)
    with_wells = next((run for run in ordered if WELL in run.predictions), ordered[0])
    labels = tuple(sorted({label for run in ordered for label in labels_of(run.predictions)}))
    return Comparison(
        methods=tuple(tables),
        titles=titles,
        roles={run.name: run.role for run in ordered},
        baselines={run.name: str(run.record.get("method", {}).get("feature", "")) for run in ordered
                   if run.role == "baseline"},
        fusions={run.name: tuple(run.record.get("method", {}).get("parts", ())) for run in ordered
                 if run.role == "fusion"},
        controls=controls,
        transductive=frozenset(run.name for run in ordered if run.record.get("transductive")),
        labels=labels,
        unit=unit,
        seeds={name: int(table["seed"].min()) for name, table in tables.items()},
        ensembles={run.name: str(run.record["ensemble_of"]) for run in ordered if run.record.get("ensemble_of")},
        spread=Spread(spread_table(reduced, controls), paired_spread(tested)),
        accuracy=accuracy,
        pairs=pairs,
        confusions={n: confusion(_one_seed(r[unit]), labels) for n, r in reduced.items()},
        outcomes=_outcomes(reduced, list(tables), unit),
        folds=_fold_table(tables[with_wells.name], with_wells.response),
        doses=_doses(ordered),
        program="cp_measure" if any(run.record.get("cellprofiler", {}).get("origin") == "cp_measure" for run in ordered
                                    if run.role == "classical") else "CellProfiler",
        notes=_notes(ordered, accuracy, pairs, unit),
    )
