"""A Hill curve through scores of a dose series, with what the doses can and cannot tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from benchmark.base.errors import MorphobenchError
from benchmark.evaluation.metrics import BOOTSTRAP_SEED

Status = Literal["fitted", "below", "above", "flat", "too few"]
#: Slopes that are searched; at the upper end a score jumps between two doses of a two-fold dilution.
SLOPES = (0.25, 50.0)
#: The search for the EC50 extends this many powers of ten beyond the doses, to see whether it lies there.
MARGIN = 1.0
#: Points of the search over log EC50 (in a decade) and over log slope (in all).
STEPS, SLOPE_STEPS = 40, 48
#: Smallest standard deviation assumed of a probability between replicate wells: saturated scores (all 0 or all 1)
#: would otherwise give an interval of zero width.
SMALLEST_SD = 0.005
SHUFFLES = 499


@dataclass(frozen=True)
class HillFit:
    """A fitted Hill curve, or why there is none.

    Attributes
    ----------
    status : str
        ``fitted``; ``below`` or ``above``: there is a response, but its EC50 lies outside the doses, so no
        number is given; ``flat``: scores do not rise with dose by more than chance; ``too few`` wells or doses.
    bottom, top : float
        Score at no dose and at a saturating one, 0…1.
    ec50, ec50_low, ec50_high : float
        Concentration at half the rise, and its 95 % interval, in the unit of the doses. Bounds of 0 and
        infinity mean that the doses do not bound the interval. All nan unless ``status`` is ``fitted``.
    slope, slope_low, slope_high : float
        Hill slope (coefficient) and 95 % interval; the upper bound is infinite where the doses lie too far
        apart to tell how steep the curve is.
    p : float
        Probability of a fit this good if scores were unrelated to dose.
    n, doses : int
        Wells, and different doses above zero.
    """

    status: Status
    bottom: float = np.nan
    top: float = np.nan
    ec50: float = np.nan
    ec50_low: float = np.nan
    ec50_high: float = np.nan
    slope: float = np.nan
    slope_low: float = np.nan
    slope_high: float = np.nan
    p: float = np.nan
    n: int = 0
    doses: int = 0


@dataclass(frozen=True)
class _Series:
    """By dose: log10 dose (-inf for none), number of wells, mean score, and sum of squares around the mean."""

    log_dose: np.ndarray
    wells: np.ndarray
    mean: np.ndarray
    scatter: np.ndarray


def hill(concentration: np.ndarray, bottom: float, top: float, ec50: float, slope: float) -> np.ndarray:
    """The curve ``bottom + (top - bottom) / (1 + (ec50 / x)^slope)`` (Hill 1910); at dose 0 it is ``bottom``."""
    with np.errstate(divide="ignore"):
        rise = _rise(np.log10(np.asarray(concentration, float)), np.array([np.log10(ec50)]), np.array([slope]))
    return bottom + (top - bottom) * rise[0]


def _rise(log_dose: np.ndarray, log_ec50: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Share of the rise (curves, doses), 0…1."""
    exponent = np.clip((log_ec50[:, None] - log_dose[None, :]) * slope[:, None], -300, 300)
    return 1 / (1 + 10.0**exponent)


def _series(concentration: np.ndarray, score: np.ndarray) -> _Series:
    doses, which = np.unique(concentration, return_inverse=True)
    wells = np.bincount(which).astype(float)
    mean = np.bincount(which, score) / wells
    with np.errstate(divide="ignore"):
        return _Series(np.log10(doses), wells, mean, np.bincount(which, (score - mean[which]) ** 2))


def _levels(rise: np.ndarray, series: _Series) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each curve shape the best bottom and top with 0 <= bottom <= top <= 1, and the residual sum of squares.

    With the shape given, both enter linearly, so they are solved for rather than searched (variable projection,
    Golub & Pereyra 1973). The best is the free solution, or lies on an edge of the triangle that is allowed.

    Parameters
    ----------
    rise : ndarray, shape (curves, doses)

    Returns
    -------
    tuple of ndarray, each of shape (curves,)
    """
    w, y = series.wells, series.mean
    tiny = 1e-12
    share, mean = rise @ w / w.sum(), float(y @ w / w.sum())
    spread = np.maximum(((rise - share[:, None]) ** 2) @ w, tiny)
    slope = ((rise - share[:, None]) * (y - mean)) @ w / spread
    free_bottom = mean - slope * share
    free_top = free_bottom + slope
    from_zero = np.clip((rise * y) @ w / np.maximum((rise**2) @ w, tiny), 0, 1)
    fall = 1 - rise
    to_one = np.clip(1 - (fall * (1 - y)) @ w / np.maximum((fall**2) @ w, tiny), 0, 1)
    level = np.full(len(rise), np.clip(mean, 0, 1))
    nil, one = np.zeros(len(rise)), np.ones(len(rise))
    bottoms = np.stack([free_bottom, level, nil, to_one])
    tops = np.stack([free_top, level, from_zero, one])
    fitted = bottoms[:, :, None] + (tops - bottoms)[:, :, None] * rise
    left = ((fitted - y) ** 2) @ w
    left[0, ~((free_bottom >= 0) & (free_bottom <= free_top) & (free_top <= 1))] = np.inf
    best = left.argmin(axis=0)
    rows = np.arange(len(rise))
    return bottoms[best, rows], tops[best, rows], left[best, rows] + series.scatter.sum()


def _explains_more_than_chance(concentration: np.ndarray, score: np.ndarray, ends: tuple[float, float]) -> float:
    """Permutation p value of the best rising curve's fit, the wells' scores shuffled over doses."""
    log_ec50, slope = _grid(ends, 8, 6)

    def best(shuffled: np.ndarray) -> float:
        series = _series(concentration, shuffled)
        return float(_levels(_rise(series.log_dose, log_ec50, slope), series)[2].min())

    rng = np.random.default_rng(BOOTSTRAP_SEED)
    own = best(score) * (1 + 1e-9)
    as_good = sum(best(rng.permutation(score)) <= own for _ in range(SHUFFLES))
    return (1 + as_good) / (1 + SHUFFLES)


def _grid(ends: tuple[float, float], steps: int, slope_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of log EC50 (outer) and slope (inner)."""
    log_ec50 = np.linspace(*ends, max(2, round((ends[1] - ends[0]) * steps)))
    slopes = np.geomspace(*SLOPES, slope_steps)
    return np.repeat(log_ec50, len(slopes)), np.tile(slopes, len(log_ec50))


def _polish(series: _Series, start: tuple[float, float], ends: tuple[float, float]) -> tuple[float, float]:
    """Least squares over log EC50 and log slope, from a point of the grid."""
    from scipy.optimize import least_squares

    low, high = np.array([ends[0], np.log(SLOPES[0])]), np.array([ends[1], np.log(SLOPES[1])])

    def residuals(at: np.ndarray) -> np.ndarray:
        rise = _rise(series.log_dose, at[:1], np.exp(at[1:]))
        bottom, top, _ = _levels(rise, series)
        return np.sqrt(series.wells) * (bottom + (top - bottom) * rise[0] - series.mean)

    inside = np.clip([start[0], np.log(start[1])], low + 1e-6, high - 1e-6)
    optimum = least_squares(residuals, inside, bounds=(low, high))
    return float(optimum.x[0]), float(np.exp(optimum.x[1]))


def _ends_of(axis: np.ndarray, profile: np.ndarray, limit: float) -> tuple[float, float]:
    """First and last point at which a profile is below ``limit``, interpolated linearly between grid points."""
    inside = np.flatnonzero(profile <= limit)
    first, last = inside[0], inside[-1]
    low, high = axis[first], axis[last]
    if first > 0:
        low = np.interp(-limit, -profile[[first - 1, first]], axis[[first - 1, first]])
    if last < len(axis) - 1:
        high = np.interp(limit, profile[[last, last + 1]], axis[[last, last + 1]])
    return float(low), float(high)


def hill_fit(concentration: np.ndarray, score: np.ndarray, level: float = 0.95) -> HillFit:
    """Fit a rising four-parameter Hill curve to the scores of a dose series, by least squares on log dose.

    Several starts from a grid over EC50 and slope, then `scipy.optimize.least_squares`. The intervals are profile
    likelihoods (Venzon & Moolgavkar 1988, Appl Stat 37:87; with the F limit of Bates & Watts 1988, §6.1): all
    values of one parameter at which the best fit over the other three leaves a residual sum of squares of at most
    ``S + c F(1, n - 4) S / (n - 4)``, S the least and ``c`` at least 1 for unequal spread (see `_inflation`). They
    may be asymmetric or open, as they should be where the doses do not bracket the response. They treat the wells as
    independent: they do not account for what a whole plate shares (its cells, its dilutions).

    Parameters
    ----------
    concentration : ndarray, shape (n,)
        At least 0; wells without dose determine the curve's bottom (log dose is minus infinity).
    score : ndarray, shape (n,)
        0…1, one per well; larger means more response.
    level : float
        Of the intervals.

    Returns
    -------
    HillFit
        A falling curve is ``flat``: the score is that of the response, so a fall is no response. A number for the EC50
        is given only where it lies between the lowest and the highest dose.

    Raises
    ------
    MorphobenchError
        A concentration is negative or not finite, or a score not in 0…1.
    """
    from scipy.special import fdtri

    concentration, score = np.asarray(concentration, float), np.asarray(score, float)
    if not np.isfinite(concentration).all() or (concentration < 0).any():
        raise MorphobenchError("has concentrations that are negative or not finite", "dose series")
    if not np.isfinite(score).all() or (score < -1e-6).any() or (score > 1 + 1e-6).any():
        raise MorphobenchError("has scores that are no probabilities", "dose series")
    n, doses = len(score), np.unique(concentration[concentration > 0])
    if len(doses) < 3 or n < 6:
        return HillFit("too few", n=n, doses=len(doses))
    lowest, highest = float(np.log10(doses[0])), float(np.log10(doses[-1]))
    ends = (lowest - MARGIN, highest + MARGIN)
    p = _explains_more_than_chance(concentration, score, ends)
    if p >= 1 - level:
        return HillFit("flat", p=p, n=n, doses=len(doses))
    series = _series(concentration, score)
    log_ec50, slope = _best(series, ends)
    rise = _rise(series.log_dose, np.array([log_ec50]), np.array([slope]))
    bottom, top, least = (float(v[0]) for v in _levels(rise, series))
    if not lowest <= log_ec50 <= highest:
        status: Status = "below" if log_ec50 < lowest else "above"
        return HillFit(status, bottom, top, p=p, n=n, doses=len(doses))
    variance = max(least / (n - 4), SMALLEST_SD**2)
    allowed = variance * fdtri(1, n - 4, level) * _inflation(series, log_ec50, slope, bottom, top)
    (low, high), (slope_low, slope_high) = _intervals(series, log_ec50, slope, ends, least + allowed)
    return HillFit(
        "fitted", bottom, top, 10**log_ec50,
        10**low if low >= lowest else 0.0, 10**high if high <= highest else np.inf, slope,
        slope_low if slope_low > SLOPES[0] * 1.001 else 0.0, slope_high if slope_high < SLOPES[1] / 1.001 else np.inf,
        p, n, len(doses),
    )  # fmt: skip


def _best(series: _Series, ends: tuple[float, float]) -> tuple[float, float]:
    """Log EC50 and slope of the least sum of squares, polished from several points of a grid.

    Where scores jump between two doses, every EC50 between them fits equally well: the middle one is taken.
    """
    log_ec50, slope = _grid(ends, STEPS, SLOPE_STEPS)
    left = _levels(_rise(series.log_dose, log_ec50, slope), series)[2]
    alike = np.flatnonzero(left <= left.min() + 1e-6 * series.wells.sum())
    middle = alike[np.abs(log_ec50[alike] - log_ec50[alike].mean()).argmin()]
    order = np.argsort(left, kind="stable")
    points = [(float(log_ec50[i]), float(slope[i])) for i in [middle, *order[:200:40]]]
    candidates = [points[0], *(_polish(series, point, ends) for point in points)]
    at = np.array(candidates)
    squares = _levels(_rise(series.log_dose, at[:, 0], at[:, 1]), series)[2]
    # The first that is as good as any within rounding, so that the middle of a plateau is kept.
    return candidates[int(np.flatnonzero(squares <= squares.min() + 1e-9)[0])]


def _inflation(series: _Series, log_ec50: float, slope: float, bottom: float, top: float) -> np.ndarray:
    """By how much unequal spread widens the variance of log EC50 and log slope, each at least 1.

    Scores that are probabilities scatter half-way up the curve, where the EC50 is determined, and hardly at its ends;
    the plain limit then covers the truth in 80 % of simulated plates, not 95 %.
    A likelihood ratio keeps its distribution when it is divided by robust over plain variance (Kent 1982, Biometrika
    69:19). The robust variance is the sandwich HC3 (MacKinnon & White 1985). A level at 0 or 1 is treated as known.
    """
    at, step = np.array([log_ec50, np.log(slope)]), 1e-5

    def rise_at(point: np.ndarray) -> np.ndarray:
        return _rise(series.log_dose, point[:1], np.exp(point[1:]))[0]

    rise = rise_at(at)
    columns = [(top - bottom) * (rise_at(at + d) - rise_at(at - d)) / (2 * step) for d in step * np.eye(2)]
    if bottom > 1e-9:
        columns.append(1 - rise)
    if top < 1 - 1e-9:
        columns.append(rise)
    jacobian, wells = np.stack(columns, axis=1), series.wells
    inverse = np.linalg.pinv((jacobian * wells[:, None]).T @ jacobian)
    leverage = np.clip(np.einsum("di,ij,dj->d", jacobian, inverse, jacobian), 0, 0.9)
    squares = series.scatter + wells * (series.mean - bottom - (top - bottom) * rise) ** 2
    meat = (jacobian * (squares / (1 - leverage) ** 2)[:, None]).T @ jacobian
    robust = np.diag(inverse @ meat @ inverse)[:2]
    plain = np.diag(inverse)[:2] * squares.sum() / (wells.sum() - 4)
    return np.maximum(1.0, robust / np.maximum(plain, 1e-300))


def _intervals(
    series: _Series, log_ec50: float, slope: float, ends: tuple[float, float], limits: np.ndarray
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Where the profiles of log EC50 and of slope stay below their limits; the grid is fine around the estimate."""
    fine = np.geomspace(1e-4, 0.4, 25)
    coarse_ec50, coarse_slope = _grid(ends, STEPS, SLOPE_STEPS)
    ec50s = np.unique(np.clip([*coarse_ec50, log_ec50, *(log_ec50 + fine), *(log_ec50 - fine)], *ends))
    slopes = np.unique(np.clip([*coarse_slope, slope, *(slope * np.exp(fine)), *(slope * np.exp(-fine))], *SLOPES))
    rise = _rise(series.log_dose, np.repeat(ec50s, len(slopes)), np.tile(slopes, len(ec50s)))
    left = _levels(rise, series)[2].reshape(len(ec50s), len(slopes))
    low, high = _ends_of(np.log(slopes), left.min(axis=0), limits[1])
    return _ends_of(ec50s, left.min(axis=1), limits[0]), (float(np.exp(low)), float(np.exp(high)))
