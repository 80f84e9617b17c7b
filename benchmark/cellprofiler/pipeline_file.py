"""Reading a pipeline's file, and refusing what is none of CellProfiler 4."""

from __future__ import annotations

import re
from pathlib import Path

from benchmark.base.errors import MorphobenchError

MAGIC = "CellProfiler Pipeline: http://www.cellprofiler.org"
_NAMED = re.compile(r"^(\w+):\[", re.MULTILINE)
#: Modules that CellProfiler 4 neither has nor renames (cellprofiler_core.constants.modules of 4.2.8.1).
GONE = frozenset({"CorrectIllumination_Calculate_kate", "FileNameMetadata", "GroupMovieFrames", "IdentifyPrimLoG",
                  "LoadImageDirectory", "LoadImages", "LoadSingleImage", "Restart", "SplitOrSpliceMovie",
                  "SubtractBackground"})
_EXPORT = "Export it from CellProfiler as .cppipe."


def read_pipeline(path: Path) -> str:
    """Text of a .cppipe file with its line ends as they are.

    Raises
    ------
    MorphobenchError
        The file is missing, a folder, or not a text pipeline (a .cpproj or .json one, for example), or has modules
        that CellProfiler 4 no longer has.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise MorphobenchError("no such pipeline", str(path), "Set cellprofiler.pipeline in the study.") from None
    except UnicodeDecodeError as error:
        raise MorphobenchError("is not a text pipeline", str(path), _EXPORT) from error
    except IsADirectoryError:
        raise MorphobenchError("is a folder, not a pipeline", str(path),
                               "Set cellprofiler.pipeline to a .cppipe file.") from None
    except OSError as error:
        raise MorphobenchError(f"cannot be read ({error.strerror})", str(path),
                               "Set cellprofiler.pipeline in the study.") from error
    if "\0" in text:
        raise MorphobenchError("is not a text pipeline: it holds a NUL character", str(path), _EXPORT)
    if not text.lstrip("\ufeff").startswith(MAGIC):
        raise MorphobenchError("is not a CellProfiler pipeline", str(path), _EXPORT)
    gone = sorted({found[1] for found in _NAMED.finditer(text)} & GONE)
    if gone:
        raise MorphobenchError(f"is of an older CellProfiler: {', '.join(gone)} is no module of CellProfiler 4",
                               str(path), "Open it in CellProfiler 4, replace what it cannot load, and export it.")
    return text
