"""The last stage: all finished runs of a study compared on one page."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from benchmark import __version__
from benchmark.base.errors import LeakError
from benchmark.base.files import digest, read_json, sha256_file, whole, write_json
from benchmark.base.tables import COMPOUND, FIELD_KEY, LABEL, PLATE, SITE, TREATMENT_KEY, WELL, WELL_KEY
from benchmark.evaluation.comparison import Run, compare
from benchmark.evaluation.ensembles import with_ensembles
from benchmark.explain.record import ARRAYS, RECORD
from benchmark.folds.audit import audit
from benchmark.folds.fold import HELD_OUT, rows_of
from benchmark.folds.trunks import make_trunks, trunks_hash
from benchmark.methods.workers.runs import read_response, read_run
from benchmark.report.grid import grid_section, grid_text
from benchmark.report.page import render
from benchmark.report.saliency import explanation_section
from benchmark.report.sharing import sharing_notes
from benchmark.report.text import accuracy_text
from benchmark.workflow.explaining import Explained
from benchmark.workflow.grid import Grid
from benchmark.workflow.opened import REPORTS, Opened
from benchmark.workflow.pictures import render_samples
from benchmark.workflow.run import FinishedRun

#: Raised when the page changes, so that pages made by older code are drawn again.
PAGE = 6
#: Tables beside a page that not every study has.
OPTIONAL = frozenset({"dose", "dose-wells", "grid", "grid-corrections", "reproducibility", "fields", "seeds",
                      "seed-pairs"})


@dataclass(frozen=True)
class Report:
    """A rendered report: the page, the comparison as text, and whether it was there already."""

    page: Path
    text: str
    fresh: bool


def make_report(opened: Opened, finished: list[FinishedRun], grid: Grid | None = None, reports: Path = REPORTS,
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
    audit(opened.split, opened.assay, opened.assay_hash, opened.hashes)
    _audit_shared(opened, finished)
    folder = reports / opened.study.name
    fields = _field_rows(opened)
    key = _key(opened, finished, grid, fields, explained)
    stamp = folder / "report.json"
    page = folder / "index.html"
    if page.exists() and stamp.exists() and (made := read_json(stamp)).get("key") == key:
        return Report(page, made["text"], False)
    stamp.unlink(missing_ok=True)  # until the page is whole, none is
    runs = [
        Run(f.method.name, f.title, f.record, read_run(f.folder, opened.split, opened.study.seeds),
            read_response(f.folder, opened.split, opened.study.seeds))
        for f in finished
    ]
    runs = with_ensembles(runs, opened.study.ensembles)
    comparison = compare(runs, _unit(opened))
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
        with whole(folder / f"{name}.csv") as tmp:
            table.assign(simulated=opened.assay.simulated).to_csv(tmp, index=False)
    pictures = render_samples(opened, folder / "figures")
    section = None
    if grid is not None:
        section = grid_section(grid.table, grid.skipped, grid.unscored, grid.facts, grid.reproducibility, grid.rows,
                               opened.study.assay.published())
    why = explanation_section(explained.explanation, explained.title) if explained is not None else None
    render(_study_facts(opened), runs, comparison, pictures, folder, section, fields, why)
    text = accuracy_text(comparison)
    if grid is not None:
        text += grid_text(grid.table, grid.skipped, grid.unscored) + "\n"
    write_json(stamp, {"key": key, "text": text})
    return Report(page, text, True)


def _audit_shared(opened: Opened, finished: list[FinishedRun]) -> None:
    """Trainings that folds of a run shared are those that may be shared of these folds, audited once more."""
    for run in finished:
        if "shared" in run.record and run.record["inputs"]["trunks"] != trunks_hash(
                make_trunks(opened.split, opened.assay)):
            raise LeakError("its folds shared other trainings than these folds may", f"run of {run.method.name}",
                            f"Delete {run.folder.path} and run again.")


def _field_rows(opened: Opened) -> list[dict[str, str]]:
    """Fields that quality control flagged, and those that CellProfiler could not measure, for the page."""
    rows = []
    gone = set(opened.dropped.itertuples(index=False, name=None))
    for table, lost in ((opened.quality, False), (opened.lost, True)):
        for _, row in table.iterrows():
            out = "left out of both arms" if tuple(row[FIELD_KEY]) in gone else "flagged, and used"
            rows.append({"plate": str(row[PLATE]), "well": str(row[WELL]), "site": str(row[SITE]),
                         "state": f"{out}: not measured by CellProfiler" if lost else out,
                         "reason": str(row["reason"])})
    return rows


def _key(opened: Opened, finished: list[FinishedRun], grid: Grid | None, fields: list[dict[str, str]],
         explained: Explained | None) -> str:
    """What a page shows: all that is said of the study but how long its stages took, every run, grid, explanation."""
    shown = [grid.table.to_csv(), grid.skipped, grid.unscored, grid.facts,
             grid.reproducibility.to_csv(), grid.rows] if grid is not None else []
    facts = {k: v for k, v in _study_facts(opened).items() if k != "stages"}
    if explained is not None:
        shown += [explained.title, *(sha256_file(explained.folder / name) for name in (RECORD, ARRAYS))]
    return digest([PAGE, __version__, facts, shown, fields, opened.study.seeds, opened.study.ensembles,
                   [[f.title, f.record["run"], sha256_file(f.folder.record_path)] for f in finished]])


def _unit(opened: Opened) -> Literal["treatment", "well"]:
    """Treatments of control wells are a handful: there the wells are compared."""
    return "well" if opened.assay.scoring == "controls" else "treatment"


def _study_facts(opened: Opened) -> dict[str, Any]:
    """What the page says of the study; see `benchmark.report.page.render`."""
    assay = opened.assay
    treated = assay.treated[rows_of(assay.treated, tuple(opened.split.tested))]  # some schemes cannot score all
    treatments = treated.drop_duplicates([*TREATMENT_KEY, LABEL])
    wells = treated.drop_duplicates(WELL_KEY)
    counted = wells if _unit(opened) == "well" else treatments
    stages = [read_json(p) for p in (opened.folder / "stages").glob("*.json") if p.name in opened.used]
    stages.sort(key=lambda s: s["finished"])
    return {
        "name": opened.study.name,
        "title": opened.study.title or opened.study.name,
        "description": opened.study.description,
        "simulated": assay.simulated,
        "source": assay.source,
        "scheme": opened.split.scheme,
        "held_out": HELD_OUT[opened.split.scheme][1],
        "also_apart": "batches" if "batch" in opened.split.scheme else "",
        "n_folds": len(opened.split.folds),
        "n_fields": len(assay.predicted) if assay.channels else None,
        "n_wells": len(wells),
        "n_response": len(assay.responses.drop_duplicates(WELL_KEY)),
        "n_treatments": len(treatments),
        "n_compounds": int(treated[COMPOUND].nunique()),
        "labels": {str(k): int(v) for k, v in counted[LABEL].value_counts().sort_index().items()},
        "left_out": list(opened.split.left_out),
        "assay_hash": opened.assay_hash,
        "split_hash": opened.split.hash,
        "data_lock": opened.lock_hash or "",
        "morphobench": __version__,
        "stages": stages,
    }
