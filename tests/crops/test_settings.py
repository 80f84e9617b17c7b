"""Combinations of crop settings that make no sense are refused in words; what is transductive says so."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from benchmark.crops.settings import CropSettings


@pytest.mark.parametrize(("given", "words"), [
    ({"intensity": "controls"}, "is now intensity: standard with scale_from: controls"),
    ({"intensity": "plate"}, "scale_from: plate"),
    ({"intensity": "kensert"}, "kensert2019_bbbc014"),
    ({"quantiles": (0.9, 0.1)}, "quantiles must rise"),
    ({"grid": (0, 1)}, "grid must be between"),
    ({"kind": "cells"}, "needs box"),
    ({"kind": "cells", "box": 40, "grid": (2, 2)}, "grid cuts tiles"),
    ({"kind": "cells", "box": 40, "intensity": "kensert2019"}, "cuts its own tiles"),
    ({"box": 40}, "set kind: cells"),
    ({"mask": True}, "set kind: cells"),
    ({"intensity": "kensert2019", "grid": (2, 2)}, "leave grid out"),
    ({"intensity": "kensert2019_bbbc014", "depth": 16}, "leave depth out"),
    ({"intensity": "kensert2019", "scale_from": "plate"}, "leave them out"),
    ({"intensity": "bit_depth", "quantiles": (0.0, 1.0)}, "leave them out"),
    ({"depth": 12}, "depth"),
    ({"sise": 40}, "sise"),
])
def test_nonsense_is_refused(given, words):
    with pytest.raises(ValidationError, match=words):
        CropSettings(**given)


def test_what_is_transductive_says_so():
    assert "negative controls" in str(CropSettings().transductive)
    assert "all its fields" in str(CropSettings(scale_from="plate").transductive)
    assert "standard deviation" in str(CropSettings(intensity="kensert2019").transductive)
    assert CropSettings(intensity="bit_depth").transductive is None
    assert CropSettings(intensity="kensert2019_bbbc014").transductive is None


def test_what_enters_a_scheme():
    schemes = {"standard": (True, True), "bit_depth": (False, False), "kensert2019": (False, True),
               "kensert2019_bbbc014": (False, False)}
    for name, (illumination, controls) in schemes.items():
        settings = CropSettings.model_validate({"intensity": name})
        assert (settings.uses_illumination, settings.uses_controls) == (illumination, controls)
    assert not CropSettings(scale_from="plate").uses_controls
    cells = CropSettings(kind="cells", box=64, mask=True)
    assert cells.summary == "128 px, cells in 64 px boxes, masked, standard, 8 bit"
