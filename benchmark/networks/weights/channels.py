"""One rule by which a network trained on three colours takes any number of channels."""

from __future__ import annotations

import torch
from torch import Tensor

COLOURS = 3
MOST_CHANNELS = 8


def colour_shares(channels: int) -> Tensor:
    """How much of each colour's filters each channel gets: (C, 3) float32, every column sums to 1.

    Channels and colours are dealt to each other in turn, the shorter row starting again when it is used up, and
    each colour's filters are shared evenly among the channels it was dealt to. So

    - C = 1: the channel gets the sum of red, green and blue (timm's rule for one channel);
    - C = 2: the first gets red + blue, the second green;
    - C = 3: red, green and blue, as trained;
    - C > 3: red, green, blue, red, … , each divided by the number of channels with that colour (C = 6: halves,
      which is timm's rule; for C = 4, 5, 7 and 8 timm scales all by 3 / C, which gives grey images another total).

    Since each colour is shared out whole, C channels that are alike give the first layer the very sums that a grey
    picture gave it in pretraining, and batch normalisation meets the scale it was trained on.
    """
    if not 1 <= channels <= MOST_CHANNELS:
        raise ValueError(f"{channels} channels: 1 to {MOST_CHANNELS} are possible")
    dealt = torch.zeros(channels, COLOURS)
    for turn in range(max(channels, COLOURS)):
        dealt[turn % channels, turn % COLOURS] += 1
    return dealt / dealt.sum(0)


def adapt_filters(filters: Tensor, channels: int) -> Tensor:
    """First-layer filters (O, 3, h, w) for ``channels`` planes: (O, C, h, w), by `colour_shares`."""
    if channels == COLOURS:
        return filters
    shares = colour_shares(channels).to(filters)
    return torch.einsum("okhw,ck->ochw", filters, shares).contiguous()


def adapt_colours(values: Tensor, channels: int) -> Tensor:
    """A mean or standard deviation of each colour (3,) for each channel (C,): the average over the channel's colours.

    For C > 3 each channel has one colour, so alike channels are normalised as a grey picture is. For C = 1 and 2 that
    holds exactly only where the colours' values are equal, as they are for the embedded weights and the Inceptions.
    """
    shares = colour_shares(channels).to(values)
    return (shares / shares.sum(1, keepdim=True)) @ values
