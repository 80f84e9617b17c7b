"""Drawing one simulated field: cells with nuclei, microtubules and actin, as a fluorescence microscope sees them.

Shapes and textures are invented to be plausible to the eye and to the usual measurements; they are no
physical model, and results on them say nothing about any real compound. Lengths are in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Raise it whenever the pixels drawn from the same settings change; demo folders are then drawn again.
DRAWING = 1
CHANNELS = ("DNA", "Tubulin", "Actin")

_NUCLEUS, _CELL, _REACH = 8.5, 23.0, 38  # radii of a nucleus and a cell; half width of a cell's patch
_MARGIN = 12  # cells are placed this far outside too, so that the border cuts some


@dataclass(frozen=True)
class Effect:
    """What a treatment does to a cell that responds, and how many respond.

    The four strengths run from 0 (none) to 1; `penetrance` is the fraction of cells that respond. The
    rest are factors, 1 for no change: a compound's effects beside its mechanism, and its toxicity.
    """

    destabilise: float = 0.0  # microtubules short, broken, diffuse; several micronuclei
    disrupt: float = 0.0  # stress fibres lost, actin in dots, cells shrunken and ragged
    damage: float = 0.0  # nuclei large, flat and smooth
    arrest: float = 0.0  # rounded cells with condensed chromatin around a single aster
    penetrance: float = 0.0
    density: float = 1.0
    nucleus: float = 1.0
    cell: float = 1.0
    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Optics:
    """What is between cells and pixels, by channel; the same for a whole plate except focus.

    `gain` and `background` are in camera units, `falloff` is the loss of light at the far corner as a
    fraction, `centre` where the light is brightest (fractions of the field), `blur` in pixels.
    """

    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    background: tuple[float, float, float] = (160.0, 190.0, 170.0)
    falloff: tuple[float, float, float] = (0.2, 0.2, 0.2)
    centre: tuple[float, float] = (0.5, 0.5)
    blur: float = 0.8
    noise: float = 1.0


@dataclass
class _Cells:
    """One entry a cell: position, shape and strength of each effect in it."""

    xy: np.ndarray  # (n, 2), x and y of the nucleus
    angle: np.ndarray  # long axis
    radius: np.ndarray
    stretch: np.ndarray
    ragged: np.ndarray
    nucleus: np.ndarray
    destabilise: np.ndarray
    disrupt: np.ndarray
    damage: np.ndarray
    mitotic: np.ndarray  # bool: rounded up
    aster: np.ndarray  # bool: mitotic through arrest, not through division

    def __len__(self) -> int:
        return len(self.xy)


def draw_field(size: int, cells: float, effect: Effect, optics: Optics, rng: np.random.Generator) -> np.ndarray:
    """Draw one field.

    Parameters
    ----------
    size : int
        Height and width in pixels.
    cells : float
        Expected number of cells inside the field, before `Effect.density`.
    effect : Effect
        Of the treatment.
    optics : Optics
        Of the plate.
    rng : Generator
        The only source of randomness.

    Returns
    -------
    ndarray of shape (3, size, size), uint16
        DNA, tubulin, actin.
    """
    population = _populate(size, cells * effect.density, effect, rng)
    labels, depth = _territories(size, population, rng)
    planes = (
        _draw_dna(size, population, rng),
        _draw_tubulin(labels, depth, population, rng),
        _draw_actin(labels, depth, population, rng),
    )
    return np.stack([_image(p, c, effect.gain[c], optics, rng) for c, p in enumerate(planes)])


def _populate(size: int, expected: float, effect: Effect, rng: np.random.Generator) -> _Cells:
    """Place cells at some distance from one another, and decide what each of them does."""
    side = size + 2 * _MARGIN
    n = int(rng.poisson(expected * side**2 / size**2))
    apart = min(25.0, 0.6 * side / np.sqrt(max(n, 1)))
    placed: list[np.ndarray] = []
    for _ in range(n):
        tries = rng.uniform(-_MARGIN, size + _MARGIN, (24, 2))
        if placed:
            gaps = np.linalg.norm(tries[:, None] - np.array(placed)[None], axis=2).min(axis=1)
            placed.append(tries[np.argmax(gaps > apart) if (gaps > apart).any() else np.argmax(gaps)])
        else:
            placed.append(tries[0])
    xy = np.array(placed).reshape(-1, 2)
    n = len(xy)
    responds = rng.random(n) < effect.penetrance
    strength = responds * np.clip(rng.normal(1, 0.25, n), 0.3, 1.5)  # cells of one well differ in response
    destabilise, disrupt, damage = (np.clip(strength * s, 0, 1) for s in
                                    (effect.destabilise, effect.disrupt, effect.damage))
    aster = responds & (rng.random(n) < effect.arrest)
    mitotic = aster | (rng.random(n) < 0.03)
    radius = _CELL * effect.cell * rng.lognormal(0, 0.13, n) * (1 - 0.32 * disrupt) * (1 - 0.15 * destabilise)
    radius *= 1 + 0.12 * damage
    nucleus = _NUCLEUS * effect.nucleus * rng.lognormal(0, 0.09, n) * (1 + 0.38 * damage)
    return _Cells(
        xy, rng.uniform(0, np.pi, n), np.where(mitotic, 11.5 * rng.lognormal(0, 0.06, n), radius),
        np.where(mitotic, 1.0, rng.lognormal(0.18, 0.12, n) * (1 - 0.1 * destabilise)),
        np.where(mitotic, 0.02, 0.09 + 0.10 * disrupt), nucleus, destabilise, disrupt, damage, mitotic, aster,
    )


def _patch(size: int, x: float, y: float, reach: int) -> tuple[slice, slice, np.ndarray, np.ndarray]:
    """The part of the field within ``reach`` of a point: row and column slices, and dx, dy of its pixels."""
    left, right = max(0, int(x) - reach), min(size, int(x) + reach + 1)
    top, bottom = max(0, int(y) - reach), min(size, int(y) + reach + 1)
    dy, dx = np.mgrid[top:max(top, bottom), left:max(left, right)].astype(np.float32)
    return slice(top, max(top, bottom)), slice(left, max(left, right)), dx - x, dy - y


def _territories(size: int, cells: _Cells, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Which cell each pixel belongs to (-1 for none), and how deep inside it is (1 at the centre, 0 outside).

    A cell is a blob whose outline wavers by angle; where blobs meet, a pixel belongs to the cell in which it
    is deeper, so that cells touch without overlapping.
    """
    labels = np.full((size, size), -1, np.int32)
    nearest = np.ones((size, size), np.float32)
    for i in range(len(cells)):
        amplitude = cells.ragged[i] * rng.normal(0, 1, 7) / np.sqrt(np.arange(1, 8))
        phase = rng.uniform(0, 2 * np.pi, 7)
        rows, columns, dx, dy = _patch(size, cells.xy[i, 0], cells.xy[i, 1], _REACH)
        if dx.size == 0:
            continue
        c, s = np.cos(cells.angle[i]), np.sin(cells.angle[i])
        along, across = (c * dx + s * dy) / cells.stretch[i], (-s * dx + c * dy) * cells.stretch[i]
        theta = np.arctan2(across, along)
        waver = 1 + sum(a * np.cos((k + 2) * theta + p)
                        for k, (a, p) in enumerate(zip(amplitude, phase, strict=True)))
        ratio = np.hypot(along, across) / (cells.radius[i] * np.clip(waver, 0.45, 1.6))
        mine = ratio < nearest[rows, columns]
        nearest[rows, columns][mine] = ratio[mine]
        labels[rows, columns][mine] = i
    return labels, 1 - nearest


def _noise(shape: tuple[int, ...], sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise of unit variance."""
    from scipy import ndimage

    field = ndimage.gaussian_filter(rng.standard_normal(shape, np.float32), sigma, mode="wrap")
    return field / max(float(field.std()), 1e-6)


def _ellipse(canvas: np.ndarray, x: float, y: float, a: float, b: float, angle: float, level: float) -> None:
    """Draw a filled ellipse with soft edges; where it meets another, the brighter one shows."""
    rows, columns, dx, dy = _patch(canvas.shape[0], x, y, int(max(a, b)) + 3)
    if dx.size == 0:
        return
    c, s = np.cos(angle), np.sin(angle)
    rho = np.hypot((c * dx + s * dy) / a, (-s * dx + c * dy) / b)
    edge = np.clip((1 - rho) * min(a, b) / 1.5 + 0.5, 0, 1)
    np.maximum(canvas[rows, columns], level * edge * (1 - 0.18 * rho**2).clip(0), out=canvas[rows, columns])


def _draw_dna(size: int, cells: _Cells, rng: np.random.Generator) -> np.ndarray:
    """Nuclei: brightness follows DNA content over area; chromatin grain, nucleoli; micronuclei and mitoses."""
    canvas = np.zeros((size, size), np.float32)
    smooth = np.zeros((size, size), np.float32)
    for i in range(len(cells)):
        x, y = cells.xy[i]
        r = cells.nucleus[i]
        content = rng.choice([1.0, 1.35, 1.8], p=[0.6, 0.2, 0.2]) * rng.lognormal(0, 0.08)
        turn = rng.uniform(0, np.pi)
        if cells.mitotic[i]:
            level = 1.9 * rng.lognormal(0, 0.1)
            if cells.aster[i]:  # chromosomes in a rosette around the single pole
                for angle in rng.uniform(0, 2 * np.pi) + np.arange(9) * 2 * np.pi / 9 + rng.normal(0, 0.15, 9):
                    gap = rng.uniform(2.6, 4.8)
                    _ellipse(canvas, x + gap * np.cos(angle), y + gap * np.sin(angle), 2.6, 1.6, angle, level)
            else:  # metaphase plate
                _ellipse(canvas, x, y, 6.2, 2.4, turn, level)
            continue
        if rng.random() < 0.65 * cells.destabilise[i]:
            for _ in range(rng.integers(3, 7)):
                part = r * rng.uniform(0.3, 0.62)
                angle, gap = rng.uniform(0, 2 * np.pi), r * rng.uniform(0.2, 0.95)
                _ellipse(canvas, x + gap * np.cos(angle), y + gap * np.sin(angle), part, part * 0.85, angle,
                         0.75 * content ** 0.5)
            continue
        longer = rng.uniform(1.0, 1.28)
        level = 0.62 * content * (_NUCLEUS / r) ** 1.2 * (1 + 0.35 * cells.damage[i])
        _ellipse(canvas, x, y, r * longer**0.5, r / longer**0.5, turn, level)
        rows, columns, dx, dy = _patch(size, x, y, int(r) + 3)
        smooth[rows, columns] = cells.damage[i]
        for _ in range(rng.integers(1, 4)):  # nucleoli hold little DNA
            angle, gap = rng.uniform(0, 2 * np.pi), r * rng.uniform(0.05, 0.55)
            hole = np.exp(-((dx - gap * np.cos(angle)) ** 2 + (dy - gap * np.sin(angle)) ** 2)
                          / (2 * rng.uniform(1.0, 1.7) ** 2))
            canvas[rows, columns] *= 1 - 0.42 * hole
    grain = 0.13 * _noise(canvas.shape, 1.0, rng) + 0.09 * _noise(canvas.shape, 2.2, rng)
    return 900 * canvas * np.clip(1 + grain * (1 - 0.7 * smooth), 0.2, None)


def _paths(labels: np.ndarray, owner: np.ndarray, start: np.ndarray, heading: np.ndarray, bend: np.ndarray,
           length: np.ndarray, level: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw curved filaments of one pixel a step, each ending where it leaves its cell.

    Parameters
    ----------
    labels : ndarray (H, W)
        Cell of each pixel.
    owner, heading, bend, length, level : ndarray (F,)
        Cell, first direction, standard deviation of the turn a step, steps and brightness of each filament.
    start : ndarray (F, 2)
        First points, x and y.

    Returns
    -------
    ndarray (H, W), float32
    """
    canvas = np.zeros(labels.shape, np.float32)
    if len(owner) == 0:
        return canvas
    steps = int(np.ceil(length.max())) + 1
    turns = np.cumsum(rng.standard_normal((len(owner), steps)) * bend[:, None], axis=1)
    direction = heading[:, None] + np.cumsum(turns, axis=1) * 0.2 + turns * 0.5
    x = start[:, :1] + np.cumsum(np.cos(direction), axis=1)
    y = start[:, 1:] + np.cumsum(np.sin(direction), axis=1)
    column, row = np.floor(x).astype(int), np.floor(y).astype(int)
    inside = (column >= 0) & (row >= 0) & (column < labels.shape[1] - 1) & (row < labels.shape[0] - 1)
    column, row = np.where(inside, column, 0), np.where(inside, row, 0)
    on = (inside & (labels[row, column] == owner[:, None])).cumprod(axis=1) * (np.arange(steps) < length[:, None])
    weight = (on * level[:, None]).astype(np.float32)
    fx, fy = x - np.floor(x), y - np.floor(y)
    for dr, dc, part in ((0, 0, (1 - fx) * (1 - fy)), (0, 1, fx * (1 - fy)), (1, 0, (1 - fx) * fy), (1, 1, fx * fy)):
        np.add.at(canvas, (row + dr, column + dc), weight * part)
    return canvas


def _by_cell(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Spread one value a cell over the pixels of each; 0 outside of cells."""
    return np.append(values, 0.0).astype(np.float32)[labels]


def _draw_tubulin(labels: np.ndarray, depth: np.ndarray, cells: _Cells, rng: np.random.Generator) -> np.ndarray:
    """Microtubules that radiate from around the nucleus, and tubulin that is free in the cytoplasm."""
    from scipy import ndimage

    n = len(cells)
    weak = cells.destabilise
    count = np.where(cells.mitotic, 46, np.rint(95 * (1 - 0.6 * weak))).astype(int)
    owner = np.repeat(np.arange(n), count)
    around = rng.uniform(0, 2 * np.pi, len(owner))
    off = np.where(cells.mitotic[owner], 1.0, cells.nucleus[owner] * rng.uniform(0.5, 1.7, len(owner)))
    # Short pieces of a broken network are anywhere in the cell and in any direction.
    loose = rng.random(len(owner)) < 0.8 * weak[owner]
    off = np.where(loose & ~cells.mitotic[owner], cells.radius[owner] * rng.uniform(0.2, 0.9, len(owner)), off)
    start = cells.xy[owner] + off[:, None] * _unit(around)
    heading = np.where(loose, rng.uniform(0, 2 * np.pi, len(owner)), around + rng.normal(0, 0.75, len(owner)))
    length = np.where(cells.mitotic[owner], rng.uniform(5, 9, len(owner)),
                      rng.uniform(12, 32, len(owner)) * (1 - 0.78 * weak[owner]))
    amount = rng.lognormal(0, 0.2, n)
    level = np.where(cells.mitotic, 1.2, 0.62) * amount
    threads = _paths(labels, owner, start, heading, np.full(len(owner), 0.10) + 0.12 * weak[owner], length,
                     level[owner] * rng.lognormal(0, 0.45, len(owner)), rng)
    free = np.where(cells.mitotic, 0.75, 0.30 + 0.50 * weak) * amount
    haze = _by_cell(free, labels) * (0.25 + 0.75 * depth.clip(0)) * (1 + 0.10 * _noise(labels.shape, 1.5, rng))
    return 520 * (ndimage.gaussian_filter(threads, 0.6) + haze)


def _draw_actin(labels: np.ndarray, depth: np.ndarray, cells: _Cells, rng: np.random.Generator) -> np.ndarray:
    """Cortex along the cell's edge, stress fibres along its axis, dots where fibres are lost."""
    from scipy import ndimage

    n = len(cells)
    lost = cells.disrupt
    edge = ndimage.minimum_filter(labels, 3) != ndimage.maximum_filter(labels, 3)
    from_edge = ndimage.distance_transform_edt(~edge).astype(np.float32)
    amount = rng.lognormal(0, 0.2, n)
    patchy = np.clip(1 + 0.45 * _noise(labels.shape, 3.0, rng), 0.1, None)
    rim = np.where(cells.mitotic, 1.6, 1 - 0.45 * lost) * amount
    cortex = np.exp(-((from_edge / 1.5) ** 2)) * _by_cell(rim, labels)
    count = np.where(cells.mitotic, 0, np.rint(rng.poisson(11, n) * (1 - 0.85 * lost))).astype(int)
    owner = np.repeat(np.arange(n), count)
    side = rng.uniform(-0.75, 0.75, len(owner)) * cells.radius[owner]
    angle = cells.angle[owner] + rng.normal(0, 0.10, len(owner))
    # Each fibre starts on the cross axis and grows both ways.
    start = cells.xy[owner] + side[:, None] * _unit(cells.angle[owner] + np.pi / 2)
    both = np.tile(np.arange(len(owner)), 2)
    fibres = _paths(labels, owner[both], start[both], np.concatenate([angle, angle + np.pi]),
                    np.full(len(both), 0.012), np.tile(rng.uniform(9, 27, len(owner)), 2),
                    np.tile(amount[owner] * rng.lognormal(0, 0.35, len(owner)), 2), rng)
    dots = np.zeros(labels.shape, np.float32)
    owner = np.repeat(np.arange(n), rng.poisson(np.where(cells.mitotic, 0.5, 1.5 + 15 * lost)))
    place = cells.xy[owner] + (cells.radius[owner] * np.sqrt(rng.uniform(0.02, 0.85, len(owner))))[:, None] * _unit(
        rng.uniform(0, 2 * np.pi, len(owner)))
    column, row = np.floor(place).astype(int).T
    good = (column >= 0) & (row >= 0) & (column < labels.shape[1]) & (row < labels.shape[0])
    np.add.at(dots, (row[good], column[good]), rng.lognormal(0, 0.4, len(owner))[good].astype(np.float32))
    dots = ndimage.gaussian_filter(dots, 1.2) * 8 * (labels >= 0)
    haze = _by_cell(np.where(cells.mitotic, 0.6, 0.30 + 0.08 * lost) * amount, labels) * (0.5 + 0.5 * depth.clip(0))
    return 560 * (cortex * patchy + 0.8 * ndimage.gaussian_filter(fibres, 0.6) + dots + haze)


def _unit(angle: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def _image(plane: np.ndarray, channel: int, gain: float, optics: Optics, rng: np.random.Generator) -> np.ndarray:
    """What the camera records: blur, uneven light on signal and background, shot and read noise."""
    from scipy import ndimage

    size = plane.shape[0]
    y, x = (np.mgrid[0:size, 0:size] + 0.5) / size
    far = np.hypot(max(optics.centre[0], 1 - optics.centre[0]), max(optics.centre[1], 1 - optics.centre[1]))
    light = 1 - optics.falloff[channel] * ((x - optics.centre[0]) ** 2 + (y - optics.centre[1]) ** 2) / far**2
    sharp = ndimage.gaussian_filter(plane, optics.blur)
    # A little light from out-of-focus planes.
    signal = 0.9 * sharp + 0.1 * ndimage.gaussian_filter(sharp, 8.0)
    expected = light * (signal * gain * optics.gain[channel] + 0.6 * optics.background[channel])
    expected += 0.4 * optics.background[channel]
    electrons = 2.0 / optics.noise**2  # per camera unit: noisier cameras collect less light
    recorded = rng.poisson(expected * electrons) / electrons + rng.normal(0, 9 * optics.noise, plane.shape)
    return np.clip(np.rint(recorded), 0, 65535).astype(np.uint16)
