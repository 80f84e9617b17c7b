"""Steps of measuring a field in this process, and which of their errors one field alone is to blame for.

scikit-image, cp_measure and NumPy raise whatever comes up at pixels that nobody thought of. That costs the field;
errors of ours name the pipeline and stop the run, and so do those of the machine and of the installation.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from benchmark.base.errors import MorphobenchError

#: What no field is to blame for: errors of ours, no memory, no file, a library that is not there; and warnings that
#: were made errors.
_NOT_THE_FIELDS = (MorphobenchError, MemoryError, OSError, ImportError, Warning)


class FieldFault(MorphobenchError):
    """What one field alone is to blame for."""


@contextmanager
def step(name: str) -> Iterator[None]:
    """Do one module's work on one field.

    Raises
    ------
    FieldFault
        It failed with an error that is not `_NOT_THE_FIELDS`; names the module and the error.
    """
    try:
        yield
    except _NOT_THE_FIELDS:
        raise
    except Exception as error:  # whatever libraries raise at odd pixels: there is no list of it
        said = " ".join(str(error).split())[:300]
        raise FieldFault(f"{name} failed with {type(error).__name__}: {said}",
                         remedy="Look at the field's images; leave it out of the table if they are broken.") from error
