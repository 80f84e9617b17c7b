"""The study file: an assay, a split scheme, methods with their settings, and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PrivateAttr, ValidationError, model_validator

from benchmark.assays.registry import ASSAYS, AssaySettings
from benchmark.base.errors import FaultsError, MorphobenchError
from benchmark.base.files import usable
from benchmark.base.registry import AnyKind, rebuilt
from benchmark.base.settings import Settings
from benchmark.cellprofiler.settings import CellProfilerSettings, WholeFieldSettings
from benchmark.explain.settings import ExplainSettings
from benchmark.folds.fold import Scheme
from benchmark.images.settings import IlluminationSettings
from benchmark.methods.base import Method
from benchmark.methods.grid import GridSettings
from benchmark.methods.registry import METHODS, kinds_that, refuse_unfit_parts
from benchmark.quality.settings import QualitySettings
from benchmark.workflow.study_faults import faults_of, read_as_other, truths_as_numbers
from benchmark.workflow.study_yaml import EXAMPLE, read_document

#: Studies that come with morphobench.
STUDIES = Path(__file__).parents[1] / "studies"
SUFFIXES = (".yaml", ".yml")
#: Folders of ``runs/<study>`` that are no method's.
RESERVED = frozenset({"assay", "cells", "checked", "crops", "explained", "features", "grid", "illumination", "measured",
                      "splits", "stages"})


class StudyExplainSettings(ExplainSettings):
    """Which network of the study is explained.

    Parameters
    ----------
    method : str
        Name of a fine-tuned method of the study.
    fold : str
        Name of the fold, which is the compound it holds out (the cell line, where folds hold out these). '': the first.
    """

    method: str
    fold: str = ""


class Study(Settings):
    """A whole study, as its file says it.

    Parameters
    ----------
    name : str
        For folders: ``runs/<name>`` and ``reports/<name>``.
    title, description : str
        For the report.
    assay : settings
        Where the images and their labels come from.
    split : str
        Scheme of the folds.
    methods : tuple of settings
        The contestants; their names are unique.
    seeds : tuple of int
        Each method runs once a seed.
    ensembles : tuple of str
        Methods whose probabilities are averaged over the seeds as well, as a further row of the comparison.
    cellprofiler : settings
        Pipeline of the classical arm.
    illumination : settings
        Correction of uneven light, the same for CellProfiler and for crops of the scheme ``standard``.
    whole_field : settings
        The same for methods with ``profile: {source: whole_field}``: measurements of whole fields, not of cells.
    quality : settings
        Quality control of fields, the same for both arms.
    grid : settings or None
        A table of many kinds of profiles, corrections and decisions, beside the methods.
    explain : settings or None
        One fold of one fine-tuned method is trained again, and shown what its predictions rest on.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=60)
    title: str = ""
    description: str = ""
    assay: Annotated[AssaySettings, AnyKind(ASSAYS)]
    split: Scheme = "leave-one-compound-out"
    methods: tuple[Annotated[Method, AnyKind(METHODS)], ...] = Field(min_length=1)
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...] = Field((1,), min_length=1)
    ensembles: tuple[str, ...] = ()
    cellprofiler: CellProfilerSettings = CellProfilerSettings()
    illumination: IlluminationSettings = IlluminationSettings()
    whole_field: WholeFieldSettings = WholeFieldSettings()
    quality: QualitySettings = QualitySettings()
    grid: GridSettings | None = None
    explain: StudyExplainSettings | None = None

    _base: Path = PrivateAttr(default_factory=Path)

    def model_post_init(self, context: Any) -> None:
        """Keep the folder of the study's file, which pydantic's context carries."""
        if isinstance(context, Path):
            self._base = context

    @property
    def base(self) -> Path:
        """Folder of the study's file, from which its relative paths start; of a study made in Python, this folder."""
        return self._base

    @model_validator(mode="after")
    def _unique(self) -> Study:
        names = [m.name for m in self.methods]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ValueError(f"two methods have the name {twice[0]!r}")
        taken = sorted(set(names) & RESERVED)
        if taken:
            raise ValueError(f"a method cannot have the name {taken[0]!r}: the study keeps other things in that folder")
        nearest = [m.name for m in self.methods if getattr(m, "decision", "") == "nearest"]
        if self.grid is not None and "nearest" in self.grid.decisions:
            nearest.append("grid")
        if nearest and self.split == "leave-one-cell-line-out":
            raise ValueError(f"{nearest[0]}: the nearest treatment needs folds that leave compounds out")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("a seed is given twice")
        refuse_unfit_parts(self.methods)
        _refuse_ensembles(self.ensembles, self.methods, self.seeds)
        if self.explain is not None:
            _refuse_unexplainable(self.explain, self.methods)
        return self


def _refuse_ensembles(ensembles: Sequence[str], methods: Sequence[Method], seeds: Sequence[int]) -> None:
    """ValueError where there is nothing to average, or where seeds do not learn the same labels."""
    known = {m.name: m for m in methods}
    if len(set(ensembles)) != len(ensembles):
        raise ValueError("ensembles: a method is named twice")
    for name in ensembles:
        if name not in known:
            raise ValueError(f"ensembles: {name!r} is no method of the study; there are {', '.join(known)}")
        if known[name].labels == "permuted":
            raise ValueError(f"ensembles: the labels of {name} are permuted anew with each seed, so that there is "
                             "nothing to average")
    if ensembles and len(seeds) < 2:
        raise ValueError("ensembles: the study has one seed; give several (seeds: [1, 2, 3])")


def _refuse_unexplainable(explain: StudyExplainSettings, methods: Sequence[Method]) -> None:
    """ValueError where the block names no network, or one of which what is asked for would say nothing."""
    networks = {m.name: m for m in methods if m.explainable}
    method = networks.get(explain.method)
    if method is None:
        there = f"there are {', '.join(networks)}" if networks else "the study has none"
        kinds = kinds_that("explainable")
        raise ValueError(f"explain.method: {explain.method!r} is no method of kind {kinds}; {there}")
    if not explain.right + explain.wrong:
        raise ValueError("explain: right and wrong are both 0, so that there is no crop to explain")
    if method.labels == "permuted":
        raise ValueError(f"explain.method: {method.name} has permuted labels, so that there is nothing to explain")
    method.refuse_explanation(explain.ways)


def shipped_studies() -> list[str]:
    """Names of the studies that come with morphobench."""
    return sorted(p.stem for p in STUDIES.iterdir() if p.suffix in SUFFIXES)


def study_path(name: str) -> Path:
    """The file of a study: a path the user gives, or the name of one that comes with morphobench."""
    path = usable(Path(name))
    named = path.suffix.lower() in SUFFIXES
    if named and path.is_file():
        return path
    if named or ("/" in name and path.exists()):
        what = "is a folder, and a study is a file" if path.is_dir() else "is no YAML file by its name"
        raise MorphobenchError(what if path.exists() else "there is no such study file", str(path),
                               f"Give the path of a YAML file, or one of {', '.join(shipped_studies())}.")
    for suffix in SUFFIXES:
        found = STUDIES / f"{name}{suffix}"
        if "/" not in name and found.is_file():
            return found
    close = get_close_matches(name, shipped_studies(), 1)
    hint = f"Did you mean {close[0]}? " if close else ""
    raise MorphobenchError(f"there is no study {name!r}", remedy=f"{hint}Studies here: {', '.join(shipped_studies())}; "
                           "or give the path of a YAML file.")


def load_study(name: str) -> Study:
    """Read and check a study.

    Raises
    ------
    FaultsError
        Keys or values are wrong: every one is listed with its key and what is allowed there.
    MorphobenchError
        There is no such study, or the file is not YAML.

    Notes
    -----
    Where a text is wanted it is the text as written, whatever YAML makes of it: ``negative_controls: [NO, 5290]`` are
    the compounds NO and 5290.
    """
    path = study_path(name)
    document = read_document(path)
    model = rebuilt(Study)
    while True:
        raw = document.value()
        if not isinstance(raw, dict):
            raise MorphobenchError("is empty" if raw is None else "is not a study: keys with values are wanted",
                                   str(path), EXAMPLE)
        try:
            study = model.model_validate(raw, context=path.resolve().parent)
        except ValidationError as error:
            if any([document.as_text(place) for place in read_as_other(error)]):
                continue
            faults = faults_of(error, Study.model_json_schema(), document.line)
            raise FaultsError(faults, f"The study {path} has {len(faults)} fault(s):") from error
        if not any([document.as_text(place) for place in truths_as_numbers(raw, study)]):
            return study
