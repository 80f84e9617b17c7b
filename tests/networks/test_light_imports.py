"""A study is read without PyTorch, timm or scikit-learn, whatever architecture it names."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "timm", "sklearn", "captum")
PROGRAM = """
import sys
{code}
print(*(name for name in {heavy} if name in sys.modules))
"""


@pytest.mark.parametrize("code", [
    "import benchmark.explain.settings, benchmark.explain.record",
    "from benchmark.networks.settings import NetworkSettings as N\n"
    "for name in ('resnet50', 'mcnn', 'mil'): N(backbone=name).summary, N(backbone=name).model_dump()",
    "from benchmark.networks.settings import TrainingSettings\n"
    "from benchmark.networks.training.presets import resolved; resolved(TrainingSettings(), 'mil')",
])
def test_nothing_heavy_is_imported(code):
    program = PROGRAM.format(code=code, heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
