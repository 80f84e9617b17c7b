"""The last stage: all finished runs of a study compared on one page."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from benchmark import __version__
from benchmark.assays.fetching.lock import lock_hash
from benchmark.base.errors import LeakError
from benchmark.base.files import digest, read_json, sha256_file, write_json
from benchmark.base.tables import COMPOUND, FIELD_KEY, LABEL, PLATE, SITE, TREATMENT_KEY, WELL, WELL_KEY
from benchmark.cellprofiler.find import OWN
from benchmark.evaluation.units import counted_unit
from benchmark.explain.record import ARRAYS, RECORD
from benchmark.folds.audit import audit
from benchmark.folds.fold import HELD_OUT, rows_of
from benchmark.folds.trunks import make_trunks, trunks_hash
from benchmark.methods.context import FinishedRun
from benchmark.methods.workers.runs import read_response, read_run
from benchmark.workflow.accounting import data_facts
from benchmark.workflow.context import StudyContext
from benchmark.workflow.costs import costs
from benchmark.workflow.session import REPORTS

if TYPE_CHECKING:
    from benchmark.workflow.explaining import Explained
    from benchmark.workflow.grid import Grid

#: Raised when the page changes, so that pages made by older code are drawn again.
PAGE = 8
#: Tables beside a page that not every study has.
OPTIONAL = frozenset({"dose", "dose-wells", "grid", "grid-corrections", "reproducibility", "fields", "seeds",
                      "seed-pairs"})


@dataclass(frozen=True)
class Report:
    """A rendered report: the page, the comparison as text, and whether it was there already."""

    page: Path
    text: str
    fresh: bool


def make_report(context: StudyContext, finished: list[FinishedRun], grid: Grid | None = None, reports: Path = REPORTS,
                explained: Explained | None = None) -> Report:
    """Compare finished runs and render ``reports/<study>/index.html``; nothing is drawn twice.

    The folds are audited once more, against the assay as it is on disk now.

    Parameters
    ----------
    grid : Grid, optional
        The study's grid, if it has one.
    explained : Explained, optional
        Its explained fold, if it has one.

    Raises
    ------
    LeakError
        The folds are not sound, or runs used different ones.
    """
    audit(context.split, context.assay, context.assay_hash, context.fields.used.hashes)
    _audit_shared(context, finished)
    folder = reports / context.study.name
    fields = _field_rows(context)
    data = data_facts(context, finished, grid)
    key = _key(context, finished, grid, fields, data, explained)
    stamp = folder / "report.json"
    page = folder / "index.html"
    if page.exists() and stamp.exists() and (made := read_json(stamp)).get("key") == key:
        return Report(page, made["text"], False)
    # Loaded where there is something to draw: a second call with nothing to do should cost little.
    from benchmark.evaluation.comparison import Run, compare
    from benchmark.evaluation.ensembles import with_ensembles
    from benchmark.report.grid import grid_section, grid_text
    from benchmark.report.page import render
    from benchmark.report.saliency import explanation_section
    from benchmark.report.sharing import sharing_notes
    from benchmark.report.spreadsheet import write_csv
    from benchmark.report.text import accuracy_text
    from benchmark.workflow.pictures import render_samples

    stamp.unlink(missing_ok=True)  # until the page is whole, none is
    runs = [
        Run(f.method.name, f.title, f.record, read_run(f.folder, context.split, context.seeds),
            read_response(f.folder, context.split, context.seeds))
        for f in finished
    ]
    runs = with_ensembles(runs, context.study.ensembles)
    comparison = compare(runs, counted_unit(context.assay.scoring))
    comparison = replace(comparison, notes=(*comparison.notes, *sharing_notes(runs, comparison)))
    tables = {"accuracy": comparison.accuracy, "pairs": comparison.pairs}
    if comparison.doses is not None:
        tables |= {"dose": comparison.doses.table, "dose-wells": comparison.doses.wells}
    if len(comparison.spread.table):
        tables |= {"seeds": comparison.spread.table, "seed-pairs": comparison.spread.pairs}
    if grid is not None:
        tables |= {"grid": grid.table, "grid-corrections": pd.DataFrame(grid.facts),
                   "reproducibility": grid.reproducibility}
    if fields:
        tables["fields"] = pd.DataFrame(fields)
    for name in OPTIONAL - set(tables):
        (folder / f"{name}.csv").unlink(missing_ok=True)
    for name, table in tables.items():
        write_csv(folder / f"{name}.csv", table.assign(simulated=context.assay.simulated))
    pictures = render_samples(context, folder / "figures")
    section = None
    if grid is not None:
        section = grid_section(grid.table, grid.skipped, grid.unscored, grid.facts, grid.reproducibility, grid.rows,
                               context.study.assay.published())
    why = explanation_section(explained.explanation, explained.title) if explained is not None else None
    facts = _study_facts(context) | {"data": data, "costs": costs(context, finished)}
    render(facts, runs, comparison, pictures, folder, section, fields, why)
    text = accuracy_text(comparison)
    if grid is not None:
        text += grid_text(grid.table, grid.skipped, grid.unscored) + "\n"
    write_json(stamp, {"key": key, "text": text})
    return Report(page, text, True)


def _audit_shared(context: StudyContext, finished: list[FinishedRun]) -> None:
    """Trainings that folds of a run shared are those that may be shared of these folds, audited once more."""
    for run in finished:
        if "shared" in run.record and run.record["inputs"]["trunks"] != trunks_hash(
                make_trunks(context.split, context.assay)):
            raise LeakError("its folds shared other trainings than these folds may", f"run of {run.method.name}",
                            f"Delete {run.folder.path} and run again.")


def _field_rows(context: StudyContext) -> list[dict[str, str]]:
    """Fields that quality control flagged, and those that CellProfiler could not measure, for the page."""
    rows = []
    gone = set(context.fields.dropped.itertuples(index=False, name=None))
    for table, lost in ((context.fields.flags, False), (context.fields.lost, True)):
        for _, row in table.iterrows():
            out = "left out of both arms" if tuple(row[FIELD_KEY]) in gone else "flagged, and used"
            rows.append({"plate": str(row[PLATE]), "well": str(row[WELL]), "site": str(row[SITE]),
                         "state": f"{out}: not measured by CellProfiler" if lost else out,
                         "reason": str(row["reason"])})
    return rows


def _key(context: StudyContext, finished: list[FinishedRun], grid: Grid | None, fields: list[dict[str, str]],
         data: dict[str, Any], explained: Explained | None) -> str:
    """What a page shows: the facts of the study except how long its stages took, every run, grid, explanation."""
    shown = [grid.table.to_csv(), grid.skipped, grid.unscored, grid.facts,
             grid.reproducibility.to_csv(), grid.rows] if grid is not None else []
    facts = _study_facts(context)
    if explained is not None:
        shown += [explained.title, *(sha256_file(explained.folder / name) for name in (RECORD, ARRAYS))]
    return digest([PAGE, __version__, facts, shown, fields,
                   data | {"losses": list(map(str, data["losses"]))}, context.seeds, context.study.ensembles,
                   [[f.title, f.record["run"], sha256_file(f.folder.record_path)] for f in finished]])


def _study_facts(context: StudyContext) -> dict[str, Any]:
    """What the page says of the study; see `benchmark.report.page.render`."""
    assay = context.assay
    treated = assay.treated[rows_of(assay.treated, tuple(context.split.tested))]  # some schemes cannot score all
    treatments = treated.drop_duplicates([*TREATMENT_KEY, LABEL])
    wells = treated.drop_duplicates(WELL_KEY)
    counted = wells if counted_unit(context.assay.scoring) == "well" else treatments
    return {
        "name": context.study.name,
        "title": context.study.title or context.study.name,
        "description": context.study.description,
        "simulated": assay.simulated,
        "source": assay.source,
        "scheme": context.split.scheme,
        "held_out": HELD_OUT[context.split.scheme][1],
        "also_apart": "batches" if "batch" in context.split.scheme else "",
        "n_folds": len(context.split.folds),
        "n_fields": len(assay.predicted) if assay.channels else None,
        "n_wells": len(wells),
        "n_response": len(assay.responses.drop_duplicates(WELL_KEY)),
        "n_treatments": len(treatments),
        "n_compounds": int(treated[COMPOUND].nunique()),
        "labels": {str(k): int(v) for k, v in counted[LABEL].value_counts().sort_index().items()},
        "assay_hash": context.assay_hash,
        "split_hash": context.split.hash,
        "data_lock": lock_hash(assay.lock) if assay.lock else "",
        "morphobench": __version__,
        "measured_by": measured_by(context),
    }


def measured_by(context: StudyContext) -> str:
    """The program that measured, with its version; empty where nothing was measured."""
    for measured in context.measured.values():
        program = measured.record["cellprofiler"]
        name = "cp_measure" if program["origin"] == OWN else "CellProfiler"
        return f"{name} {program['version']}"
    return ""
