"""Settings of attributions, of maximised filters, and of the explanation of a network. Nothing here loads a network."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field

from benchmark.base.settings import Settings

Way = Literal["grad_cam", "guided_backpropagation", "integrated_gradients", "occlusion"]


class SaliencySettings(Settings):
    """How attributions are computed.

    Parameters
    ----------
    steps, most_steps : int
        Points on the path of integrated gradients, doubled until the attributions are complete or this many.
    tolerance : float
        Gap at which integrated gradients count as complete, see `integrated_gradients`.
    window, stride : int
        Pixels of a side of occlusion's square, and between two of them. 0: an eighth of the crop, half the window.
    """

    steps: int = Field(32, ge=2)
    most_steps: int = Field(256, ge=2)
    tolerance: float = Field(0.05, gt=0)
    window: int = Field(0, ge=0)
    stride: int = Field(0, ge=0)


class MaximiseSettings(Settings):
    """Gradient ascent on a picture, and what keeps the picture from being mere noise.

    Parameters
    ----------
    steps : int
        Of Adam.
    rate : float
        Its learning rate, on pixels before their sigmoid.
    jitter : int
        In each step the picture is shifted by up to this many pixels either way, so that no pixel is tuned by itself.
    blur : float
        Standard deviation, in pixels, of the Gaussian that smooths the picture after every fourth step; 0: none.
    decay : float
        Weight of the mean square (before the sigmoid) that draws pixels back to mid-grey.
    """

    steps: int = Field(160, ge=1)
    rate: float = Field(0.06, gt=0)
    jitter: int = Field(6, ge=0)
    blur: float = Field(0.6, ge=0)
    decay: float = Field(0.02, ge=0)


class ExplainSettings(Settings):
    """How a network is explained.

    Parameters
    ----------
    ways : tuple of str
        Ways of attribution.
    right, wrong : int
        How many correctly classified and how many misclassified crops.
    filters : int
        Filters of the last feature map to be maximised; 0: none.
    filter_size : int
        Pixels of a side of their pictures.
    sanity : bool
        Whether maps are compared with those of randomised networks, at three times the cost of the maps.
    """

    ways: tuple[Way, ...] = Field(get_args(Way), min_length=1)
    right: int = Field(4, ge=0)
    wrong: int = Field(4, ge=0)
    filters: int = Field(8, ge=0)
    filter_size: int = Field(96, ge=32)
    sanity: bool = True
    saliency: SaliencySettings = SaliencySettings()
    maximise: MaximiseSettings = MaximiseSettings()
