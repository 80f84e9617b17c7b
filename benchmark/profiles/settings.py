"""Settings of the profiles."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from benchmark.settings import Settings


class ProfileSettings(Settings):
    """From single cells to profiles.

    Parameters
    ----------
    unit : str
        ``well`` (the field's standard) or ``field``.
    aggregate : str
        ``median`` or ``mean`` over the cells of the unit.
    normalise : str
        ``controls``: per plate, to the plate's negative controls. ``plate``: per plate, to all its units.
        Both look at the test wells' plates without labels, so they are reported as transductive.
        ``training``: no plate is looked at; features are only standardised on the training wells of a fold.
    method : str
        pycytominer's method for ``controls`` and ``plate``.
    features : tuple of str
        Patterns with ``*`` and ``?`` of the features to use; all where there is none. A single read-out, such as
        the ratio of an intensity in nucleus and cytoplasm, is compared as a method of its own this way.
    correlation : float
        Of two features that correlate more than this over the training wells, one is dropped.
    """

    unit: Literal["well", "field"] = "well"
    aggregate: Literal["median", "mean"] = "median"
    normalise: Literal["controls", "plate", "training"] = "controls"
    method: Literal["standardize", "mad_robustize"] = "mad_robustize"
    features: tuple[str, ...] = ()
    correlation: float = Field(0.95, gt=0, le=1)

    @property
    def transductive(self) -> str | None:
        """What is estimated from test wells without their labels, in words; None where nothing is."""
        if self.normalise == "controls":
            return "profiles normalised per plate to the plate's negative controls"
        if self.normalise == "plate":
            return "profiles normalised per plate to all its wells"
        return None
