"""The stage that explains one fold of a fine-tuned network, after all networks have run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.errors import LeakError, MorphobenchError
from benchmark.explanation import RECORD, Explanation, read_explanation
from benchmark.explanation import REVISION as FILES
from benchmark.files import digest, sha256_file
from benchmark.methods.settings import FinetunedMethod
from benchmark.opened import Opened
from benchmark.prepare import measured_already, object_roles_of
from benchmark.splits import Fold, rows_of
from benchmark.stages import FinishedRun
from benchmark.tables import FIELD_KEY
from benchmark.tasks import run_serially

#: Raised where code changes what is explained, or how.
REVISION = 1


@dataclass(frozen=True)
class Explained:
    """A fold that has been explained: what is kept of it, where, and the method's title for readers."""

    explanation: Explanation
    folder: Path
    title: str


def explained_fold(opened: Opened) -> Fold | None:
    """The fold that the study asks to explain; None where it asks for none.

    Raises
    ------
    MorphobenchError
        There is no such fold.
    """
    if opened.study.explain is None:
        return None
    folds = {fold.name: fold for fold in opened.split.folds}
    name = opened.study.explain.fold or next(iter(folds))
    if name not in folds:
        raise MorphobenchError(f"there is no fold {name!r}", "explain.fold", f"There are {', '.join(folds)}.")
    return folds[name]


def explain(opened: Opened, finished: Sequence[FinishedRun]) -> Explained | None:
    """Explain the fold that the study names, once; None where it names none.

    The fold is trained again as its run trained it. CellProfiler is not started: regions are looked at where it has
    measured already, and when it has since, the fold is explained anew.

    Parameters
    ----------
    finished : sequence of FinishedRun
        Among them that of ``explain.method``.

    Raises
    ------
    MorphobenchError
        There is no such fold; or trained again it predicts other than in the run (`benchmark.methods.explained`).
    """
    settings, fold = opened.study.explain, explained_fold(opened)
    if settings is None or fold is None:
        return None
    run = next(f for f in finished if f.method.name == settings.method)
    seed = opened.study.seeds[0]
    masks, measured = _masks(opened, fold)
    predicted = run.folder.fold_path(fold, seed)
    key = digest([REVISION, FILES, run.folder.path.name, sha256_file(predicted), fold.name, seed,
                  settings.model_dump(mode="json"), measured])
    folder = opened.folder / "explained" / key
    opened.note("explanation", key)
    if not (folder / RECORD).exists():
        from benchmark.finetuning import prepare_finetuning, remove_trunks
        from benchmark.methods.explained import ExplainedFold, explain_finetuned_fold
        from benchmark.networks.held import forget

        assert isinstance(run.method, FinetunedMethod)  # the study's settings are refused else
        task = prepare_finetuning(opened, run.method).task(run.folder, fold, seed, None, folder)
        with opened.stage("explanation", key) as facts:
            for _ in run_serially(explain_finetuned_fold,
                                  [ExplainedFold(task, predicted, settings, masks)],
                                  f"explanation of {run.method.name}, fold {fold.name}"):
                pass
            facts["detail"] = f"{run.method.name}, fold {fold.name}"
        remove_trunks([task])
        forget()
    return Explained(read_explanation(folder), folder, run.title)


def explained_or_why_not(opened: Opened, finished: Sequence[FinishedRun]) -> tuple[Explained | None, str]:
    """The same for a report, which does without it where a fold cannot be trained here as it was; and why, in words."""
    try:
        return explain(opened, finished), ""
    except LeakError:
        raise
    except MorphobenchError as error:
        return None, f"The report goes without an explanation of the network. {error}"


def _masks(opened: Opened, fold: Fold) -> tuple[dict[int, tuple[Path, Path]], str]:
    """Masks of nuclei and cells of the fold's test fields where they were measured, and the digest of what measured."""
    measured = measured_already(opened, "cellprofiler")
    roles = object_roles_of(opened) if measured is not None else None
    if measured is None or roles is None or not (roles.nuclei and roles.cells):
        return {}, ""
    found = {}
    fields = opened.assay.fields[rows_of(opened.assay.fields, fold.test)]
    for index, row in fields.iterrows():
        nuclei, cells = (measured.mask_path(tuple(row[FIELD_KEY]), name) for name in (roles.nuclei, roles.cells))
        if nuclei is not None and cells is not None:
            found[int(str(index))] = (nuclei, cells)
    return found, str(measured.record["shards_digest"]) if found else ""
