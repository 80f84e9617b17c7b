"""morphobench: fair comparison of CellProfiler profiles and fine-tuned CNNs on one assay.

From Python::

    from benchmark import compare, load_study, run

    result = run(load_study("demo"), only=("classical",), jobs=2)
    result.runs[0].record["seconds"]

`run` does what the command line does; `compare` sets prediction tables side by side. Nothing is imported before it is
used: PyTorch is loaded when a network is first needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmark.evaluation.comparison import compare
    from benchmark.workflow.study import load_study
    from benchmark.workflow.walk import run

__version__ = "0.1.0"
__all__ = ["compare", "load_study", "run"]

_HOMES = {"compare": "benchmark.evaluation.comparison", "load_study": "benchmark.workflow.study",
          "run": "benchmark.workflow.walk"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'benchmark' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
