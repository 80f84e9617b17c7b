"""Steps of measuring a field in this process, and which of their errors are the fault of a single field.

scikit-image, cp_measure and NumPy raise all kinds of errors at unforeseen pixels. Such an error costs the field;
errors of ours name the pipeline and stop the run, and so do those of the machine and of the installation.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from benchmark.base.errors import MorphobenchError

#: Errors for which no field is to blame: errors of ours, no memory, no file, a missing library; and warnings that
#: were turned into errors.
_NOT_THE_FIELDS = (MorphobenchError, MemoryError, OSError, ImportError, Warning)


class FieldFault(MorphobenchError):
    """An error for which one field alone is to blame."""


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
    except Exception as error:  # libraries raise anything at odd pixels: there is no list
        said = " ".join(str(error).split())[:300]
        raise FieldFault(f"{name} failed with {type(error).__name__}: {said}",
                         remedy="Look at the field's images; leave it out of the table if they are broken.") from error
