"""Reading what a CellProfiler run wrote, and trusting none of it until it is consistent.

CellProfiler ends with status 0 and "Complete" after dropping a module that it does not know, and after
fields whose modules failed. So every field, every module and every object is accounted for here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from benchmark.base.errors import MorphobenchError
from benchmark.cellprofiler.execute import DONE, LOG, OUT
from benchmark.cellprofiler.pipeline import csv_prefix, loaded_images, module_names, object_names, saved_masks
from benchmark.cellprofiler.shards import NUMBER, Shard, staged_name

#: Modules that write Image.csv or come after it leave no trace in it.
_LAST = "ExportToSpreadsheet"
_UNKNOWN = re.compile(r"Could not find the (\S+) module")
_FAILED = re.compile(r"Error detected during run of module (\S+)")
_IMAGE = re.compile(r"Image # (\d+), module (\S+)")
_EXECUTED = re.compile(r"ExecutionTime_(\d+)(\w+)")
#: Lines of a log that say nothing about a failure.
_CHATTER = re.compile(r"Image # \d+, module|Warning:|^\s*return _convert|skimage\.io\.imsave|Times reported|"
                      r"MySQL|MySQLdb|Experiment-wide values|exporttodatabase\.py|^Traceback")


class PipelineFault(MorphobenchError):
    """A fault that leaving out fields cannot cure: the pipeline, or the form of its output, is at fault."""


#: Makes the error for one finding (what, what to do, its type): MorphobenchError where one field may be to blame.
Fail = Callable[..., MorphobenchError]


@dataclass(frozen=True)
class Output:
    """Checked output of one shard.

    Attributes
    ----------
    images : DataFrame
        Image.csv, sorted by and indexed with the field's number.
    objects : dict
        Object name → its table, with the column `NUMBER` (int) for its field. Empty for a pipeline that finds no
        objects.
    masks : dict
        Object name → label mask of each field, in the order of the fields.
    """

    images: pd.DataFrame
    objects: dict[str, pd.DataFrame]
    masks: dict[str, list[Path]]


def check_run(shard: Shard, folder: Path, pipeline: str, log: str = "") -> Output:
    """Read and check everything a run wrote.

    Parameters
    ----------
    shard : Shard
        What was staged.
    folder : Path
        Where it was staged and run.
    pipeline : str
        Text of the pipeline as run.
    log : str
        How messages name the log file (it may move afterwards).

    Returns
    -------
    Output

    Raises
    ------
    PipelineFault
        The pipeline dropped a module or did not run it, or its output is missing or not of the required form: no
        field is to blame.
    MorphobenchError
        Anything else is missing or inconsistent. Both messages name the field and the module where they are known,
        the log file and its last telling lines.
    """
    lines = _log_lines(folder / LOG)

    def fail(what: str, remedy: str = "", kind: type[MorphobenchError] = MorphobenchError) -> MorphobenchError:
        tail = [line.strip()[:200] for line in lines if line.strip() and not _CHATTER.search(line)][-4:]
        said = f" CellProfiler's last words: {' | '.join(tail)}" if tail else ""
        return kind(what, f"shard {shard.key}, log {log or folder / LOG}", remedy + said)

    unknown = sorted({m[1] for line in lines if (m := _UNKNOWN.search(line))})
    if unknown:
        raise fail(f"CellProfiler does not know the module(s) {', '.join(unknown)} and leaves them out",
                   "Correct the pipeline, or install the plugin.", PipelineFault)
    done = "\n".join(_log_lines(folder / DONE)).strip() if (folder / DONE).exists() else "nothing"
    if done != "Complete":
        raise fail(f"CellProfiler did not complete (done-file says {done}{_last_place(lines, shard)})")
    prefix = csv_prefix(pipeline)
    images = _read(folder / OUT / f"{prefix}Image.csv", fail)
    images = _check_fields(images, shard, fail)
    _check_modules(images, shard, pipeline, fail)
    objects = _check_objects(images, shard, folder / OUT, prefix, fail, bool(object_names(pipeline)))
    return Output(images, objects, _check_masks(shard, folder / OUT, pipeline, fail))


def _log_lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []


def _last_place(lines: Sequence[str], shard: Shard) -> str:
    """Where a run that broke off had got to: `` in module X, at field F``, as far as the log tells."""
    failed = [m[1] for line in lines if (m := _FAILED.search(line))]
    seen = [(int(m[1]), m[2]) for line in lines if (m := _IMAGE.search(line))]
    text = f", in module {failed[-1]}" if failed else ""
    if seen and 1 <= seen[-1][0] <= len(shard.fields):
        text += f", last at {shard.fields[seen[-1][0] - 1].name}, after module {seen[-1][1]}"
    return text


def _read(path: Path, fail: Fail) -> pd.DataFrame:
    try:
        return pd.read_csv(path, na_values=["nan"], low_memory=False)
    except FileNotFoundError:
        raise fail(f"{path.name} was not written", "ExportToSpreadsheet must export all measurement types, "
                   "each object to a file of its own, into the default output folder.", PipelineFault) from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise fail(f"{path.name} cannot be read ({error})", kind=PipelineFault) from error


def _check_fields(images: pd.DataFrame, shard: Shard, fail: Fail) -> pd.DataFrame:
    """Exactly the staged fields, each once; indexed and sorted by number."""
    if NUMBER not in images or "ImageNumber" not in images:
        raise fail(f"Image.csv lacks the column {NUMBER if NUMBER not in images else 'ImageNumber'}",
                   kind=PipelineFault)
    numbers = pd.to_numeric(images[NUMBER], errors="coerce")
    lacking = [shard.fields[i].name for i in range(len(shard.fields)) if not (numbers == i).any()]
    if lacking:
        raise fail(f"{len(lacking)} of {len(shard.fields)} fields are not in Image.csv, {lacking[0]} the first")
    if len(images) != len(shard.fields) or numbers.duplicated().any():
        raise fail(f"Image.csv has {len(images)} rows for {len(shard.fields)} fields", kind=PipelineFault)
    return images.set_index(numbers.astype(int)).sort_index()


def _check_modules(images: pd.DataFrame, shard: Shard, pipeline: str, fail: Fail) -> None:
    """Every module of the pipeline ran on every field, none with an error."""
    expected = module_names(pipeline)
    expected = expected[: expected.index(_LAST)]
    found = sorted((int(m[1]), m[2], column) for column in images if (m := _EXECUTED.fullmatch(str(column))))
    executed = [name for _, name, _ in found if name != _LAST]
    if executed[: len(expected)] != expected:
        missing = [name for name in dict.fromkeys(expected) if executed.count(name) < expected.count(name)]
        raise fail(f"CellProfiler did not run {', '.join(missing) or 'the modules in the order'} of the pipeline",
                   kind=PipelineFault)
    for number, name, column in found:
        error = f"ModuleError_{number:02d}{name}"
        if error not in images:
            raise fail(f"Image.csv lacks the column {error}", kind=PipelineFault)
        seconds, errors = (pd.to_numeric(images[c], errors="coerce") for c in (column, error))
        bad = errors.ne(0) | seconds.isna()
        if bad.any():
            raise fail(f"the module {name} failed at {shard.fields[int(images.index[bad.to_numpy()][0])].name}")


def _check_objects(images: pd.DataFrame, shard: Shard, out: Path, prefix: str, fail: Fail,
                   expected: bool) -> dict[str, pd.DataFrame]:
    """A table for every counted object, with as many rows per field as were counted; none where none are expected."""
    counts = [str(c) for c in images.columns if str(c).startswith("Count_")]
    if expected and not counts:
        raise fail("Image.csv counts no objects, and the pipeline finds some",
                   "ExportToSpreadsheet must export all measurement types.", PipelineFault)
    field_of = dict(zip(images["ImageNumber"], images.index, strict=True))
    objects = {}
    for column in counts:
        name = column.removeprefix("Count_")
        table = _read(out / f"{prefix}{name}.csv", fail)
        if not {"ImageNumber", "ObjectNumber"} <= set(table):
            raise fail(f"{name}.csv lacks ImageNumber or ObjectNumber", kind=PipelineFault)
        number = table["ImageNumber"].map(field_of)
        counted = pd.to_numeric(images[column], errors="coerce")
        if number.isna().any() or counted.isna().any():
            raise fail(f"{name}: an object or a count belongs to no field")
        rows = number.astype(int).value_counts().reindex(images.index, fill_value=0)
        off = images.index[(rows != counted).to_numpy()]
        if len(off):
            i = int(off[0])
            raise fail(f"{shard.fields[i].name}: {int(counted[i])} {name} were counted, and {name}.csv "
                       f"has {int(rows[i])}")
        if table.duplicated(["ImageNumber", "ObjectNumber"]).any():
            raise fail(f"{name}.csv has an object twice", kind=PipelineFault)
        own = table.drop(columns=NUMBER, errors="ignore")
        objects[name] = pd.concat([number.astype(int).rename(NUMBER), own], axis=1)
    return objects


def _check_masks(shard: Shard, out: Path, pipeline: str, fail: Fail) -> dict[str, list[Path]]:
    """One mask per field for every object whose masks the pipeline saves, no file shared by two objects."""
    masks: dict[str, list[Path]] = {}
    loaded = loaded_images(pipeline)
    for name, end in saved_masks(pipeline).items():
        # The stem is that of a staged image, f00012_OrigDNA; which image gives it is the pipeline's choice.
        stems = [[Path(staged_name(i, image)).stem for image in dict.fromkeys([*loaded, *(p.image for p in f.planes)])]
                 for i, f in enumerate(shard.fields)]
        paths = [[path for stem in of_field if (path := out / f"{stem}{end}").is_file()] for of_field in stems]
        lacking = [i for i, found in enumerate(paths) if len(found) != 1]
        if lacking:
            raise fail(f"{shard.fields[lacking[0]].name}: {len(paths[lacking[0]])} masks of {name} were saved, not one",
                       "SaveImages must name files from a loaded image and write to the default output folder.",
                       PipelineFault if len(lacking) == len(paths) else MorphobenchError)
        masks[name] = [found[0] for found in paths]
        if others := [other for other, taken in masks.items() if other != name and taken == masks[name]]:
            raise fail(f"masks of {name} and {others[0]} are saved under the same names",
                       "Give each SaveImages a text of its own to append to the image name.", PipelineFault)
    return masks


def count_table(images: pd.DataFrame) -> pd.DataFrame:
    """``Count_<object>`` of each field as whole numbers."""
    return images.filter(regex=r"^Count_").astype(np.int32)
