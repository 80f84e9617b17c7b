"""The study file: an assay, a split scheme, methods with their settings, and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, get_args

import yaml
from pydantic import Field, ValidationError, model_validator

from benchmark.assays.registry import ASSAYS, AssaySettings
from benchmark.base.errors import Fault, FaultsError, MorphobenchError
from benchmark.base.registry import AnyKind, rebuilt
from benchmark.base.settings import Settings
from benchmark.cellprofiler.settings import CellProfilerSettings, WholeFieldSettings
from benchmark.explain.settings import ExplainSettings
from benchmark.folds.fold import Scheme
from benchmark.images.settings import IlluminationSettings
from benchmark.methods.base import FinetunedMethod, MethodSettings
from benchmark.methods.grid import GridSettings
from benchmark.methods.parts import refuse_unfit_parts
from benchmark.quality.settings import QualitySettings

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
    methods: tuple[MethodSettings, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = Field((1,), min_length=1)
    ensembles: tuple[str, ...] = ()
    cellprofiler: CellProfilerSettings = CellProfilerSettings()
    illumination: IlluminationSettings = IlluminationSettings()
    whole_field: WholeFieldSettings = WholeFieldSettings()
    quality: QualitySettings = QualitySettings()
    grid: GridSettings | None = None
    explain: StudyExplainSettings | None = None

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


def _refuse_ensembles(ensembles: Sequence[str], methods: Sequence[MethodSettings], seeds: Sequence[int]) -> None:
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


def _refuse_unexplainable(explain: StudyExplainSettings, methods: Sequence[MethodSettings]) -> None:
    """ValueError where the block names no network, or one of which what is asked for would say nothing."""
    tuned = {m.name: m for m in methods if isinstance(m, FinetunedMethod)}
    method = tuned.get(explain.method)
    if method is None:
        there = f"there are {', '.join(tuned)}" if tuned else "the study has none"
        raise ValueError(f"explain.method: {explain.method!r} is no method of kind cnn_finetuned; {there}")
    if not explain.right + explain.wrong:
        raise ValueError("explain: right and wrong are both 0, so that there is no crop to explain")
    if method.labels == "permuted":
        raise ValueError(f"explain.method: {method.name} has permuted labels, so that there is nothing to explain")
    if method.training.snapshots > 1:
        raise ValueError(f"explain.method: {method.name} averages the predictions of several networks "
                         f"(training.snapshots: {method.training.snapshots}), and maps would explain one of them")
    if method.network.bagged:
        raise ValueError(f"explain.method: {method.name} decides on bags of crops (network.bag: {method.network.bag}), "
                         "and maps explain single crops")
    if set(explain.ways) <= set(method.network.architecture.unsuited):
        raise ValueError(f"explain.ways: grad_cam and guided_backpropagation need not suit {method.network.backbone}; "
                         "take integrated_gradients or occlusion as well")


def shipped_studies() -> list[str]:
    """Names of the studies that come with morphobench."""
    return sorted(p.stem for p in STUDIES.iterdir() if p.suffix in SUFFIXES)


def study_path(name: str) -> Path:
    """The file of a study: a path the user gives, or the name of one that comes with morphobench."""
    path = Path(name)
    if path.suffix in SUFFIXES:
        if path.is_file():
            return path
        raise MorphobenchError("there is no such study file", str(path))
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
    """
    path = study_path(name)
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where else ""
        raise MorphobenchError(f"is not valid YAML ({getattr(error, 'problem', error)})", f"{path}{line}") from error
    if not isinstance(raw, dict):
        raise MorphobenchError("is not a study: keys with values are wanted", str(path),
                               "See benchmark/studies/demo.yaml.")
    try:
        return rebuilt(Study).model_validate(raw)
    except ValidationError as error:
        errors = [dict(e) for e in error.errors()]
        faults = [_fault(e) for e in errors if not _follows(e, errors)]
        raise FaultsError(faults, f"The study {path} has {len(faults)} fault(s):") from error


def study_base(name: str) -> Path:
    """Folder that relative paths of a study start from."""
    return study_path(name).resolve().parent


def _fault(error: dict[str, Any]) -> Fault:
    """One of pydantic's errors in the words of a study file: the key as it is written, and what is allowed."""
    location = [str(p) for p in error["loc"]]
    key = ".".join(_written(location))
    kind, context = error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        allowed = _allowed_keys(error["loc"])
        close = get_close_matches(location[-1], allowed, 1)
        hint = f"Did you mean {close[0]}? " if close else ""
        return Fault("there is no such key", key, f"{hint}Allowed: {', '.join(allowed)}." if allowed else hint)
    if kind == "missing":
        return Fault("is missing", key)
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        expected = context.get("expected_tags", "see the README")
        given = f"{context['tag']!r} is no kind" if "tag" in context else "lacks the key `kind`"
        return Fault(given, f"{key}.kind", f"Allowed: {expected}.")
    if kind == "literal_error":
        return Fault(f"{error['input']!r} is not allowed", key, f"Allowed: {context.get('expected', '')}.")
    return Fault(f"{error['msg'].removeprefix('Value error, ')} (given: {str(error['input'])[:60]!r})", key)


def _written(location: list[str]) -> list[str]:
    """A location without what pydantic puts in and no user wrote: the kind that was chosen, and names of types."""
    tag = {"assay": 1, "methods": 2}.get(location[0], 0) if location else 0
    tags = {1: set(ASSAYS.kinds()), 2: _kinds(MethodSettings)}
    parts = [p for i, p in enumerate(location) if not (tag and i == tag and p in tags[tag])]
    branch = len(parts) > 2 and parts[1] == "columns"  # assay.columns.<key> is a string or a rule
    return [p for i, p in enumerate(parts) if not (branch and i == 3 and (p in ("str", "[key]") or "[" in p))]


def _follows(error: dict[str, Any], errors: Sequence[dict[str, Any]]) -> bool:
    """Whether an error only follows from another: a list found too short since items are wrong, a rule no string."""
    loc = error["loc"]
    if error["type"] == "too_short":
        return any(len(e["loc"]) > len(loc) and e["loc"][:len(loc)] == loc for e in errors)
    return error["type"] == "string_type" and loc[-1] == "str" and isinstance(error["input"], dict)


def _kinds(union: Any) -> set[str]:
    """The ``kind`` of each member of a union of settings."""
    return {get_args(m.model_fields["kind"].annotation)[0] for m in get_args(get_args(union)[0])}


def _allowed_keys(location: tuple[int | str, ...]) -> list[str]:
    """Keys that the block around a location knows, found by walking the settings' own schema."""
    schema = Study.model_json_schema()
    node: dict[str, Any] = schema

    def resolve(part: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in part or "allOf" in part:
            part = schema["$defs"][part["$ref"].split("/")[-1]] if "$ref" in part else part["allOf"][0]
        return part

    for step in location[:-1]:
        node = resolve(node)
        mapping = node.get("discriminator", {}).get("mapping", {})
        if isinstance(step, int):
            node = node.get("items", {})
        elif step in mapping:
            node = {"$ref": mapping[step]}
        elif step in node.get("properties", {}):
            node = node["properties"][step]
        elif isinstance(node.get("additionalProperties"), dict):
            node = node["additionalProperties"]
        else:
            return []
    return sorted(resolve(node).get("properties", {}))
