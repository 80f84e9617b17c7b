"""The correction that a study asks for."""

from __future__ import annotations

from benchmark.base.errors import MorphobenchError
from benchmark.profiles.corrections.base import Correction, NoCorrection
from benchmark.profiles.corrections.combat_harmony import ComBat, Harmony
from benchmark.profiles.corrections.sphering import TVN, Sphering
from benchmark.profiles.settings import Correction as CorrectionName


def make_correction(name: CorrectionName, seed: int = 0) -> Correction:
    """The correction of that name, not yet fitted.

    Parameters
    ----------
    name : str
        ``none``, ``sphering``, ``tvn``, ``combat`` or ``harmony``.
    seed : int
        Of Harmony's clustering; the others draw nothing.
    """
    # here, for they build on this module

    made: dict[str, Correction] = {"none": NoCorrection(), "sphering": Sphering(), "tvn": TVN(), "combat": ComBat(),
                                   "harmony": Harmony(seed)}
    if name not in made:
        raise MorphobenchError(f"no correction is called {name!r}", "profile.correction",
                               f"There are {', '.join(made)}.")
    return made[name]
