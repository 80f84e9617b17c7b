"""Pictures of cells: a sample of crops, and of segmentation outlines, one row per label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from skimage.segmentation import find_boundaries

from benchmark.base.errors import MorphobenchError
from benchmark.base.files import whole

#: Colour in which a stain's channel is drawn, by words in its name; other channels get the remaining colours.
COLOURS = {
    "blue": ("dna", "dapi", "hoechst", "nucle"),
    "green": ("tubulin", "gfp", "er"),
    "red": ("actin", "phalloidin", "mito"),
}
_RGB = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "magenta": (1, 0, 1), "cyan": (0, 1, 1)}
GAP, TEXT = 6, 21
NUCLEUS_LINE, CELL_LINE = (255, 255, 255), (255, 214, 64)


def channel_colours(channels: Sequence[str]) -> list[tuple[int, int, int]]:
    """RGB weights of each channel: DNA blue, tubulin green, actin red; a lone channel grey."""
    if len(channels) == 1:
        return [(1, 1, 1)]
    chosen: list[str | None] = []
    for channel in channels:
        name = channel.lower()
        fits = (c for c, words in COLOURS.items() if c not in chosen
                and any(name == w if len(w) < 3 else w in name for w in words))  # fmt: skip
        chosen.append(next(fits, None))
    left = [c for c in _RGB if c not in chosen]
    return [_RGB[c or left.pop(0)] if c or left else (1, 1, 1) for c in chosen]


def composite(image: np.ndarray, channels: Sequence[str], limits: np.ndarray) -> np.ndarray:
    """Colour picture of a stack of channels.

    Parameters
    ----------
    image : ndarray, shape (C, H, W)
        Any number type.
    channels : sequence of str
        Names of the C channels.
    limits : ndarray, shape (C, 2)
        Values drawn black and full.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
    """
    if image.ndim != 3 or len(image) != len(channels):
        raise MorphobenchError(f"has the shape {image.shape}, not ({len(channels)}, H, W)", "picture for the report")
    low, high = limits[:, 0, None, None], limits[:, 1, None, None]
    scaled = np.clip((image.astype(np.float32) - low) / np.maximum(high - low, 1e-6), 0, 1)
    rgb = np.einsum("chw,ck->hwk", scaled, np.array(channel_colours(channels), np.float32))
    return (np.clip(rgb, 0, 1) * 255).round().astype(np.uint8)


def display_limits(images: Sequence[np.ndarray]) -> np.ndarray:
    """One black and one white point per channel for all pictures, so that their brightness can be compared.

    Returns
    -------
    ndarray of float, shape (C, 2)
        1st and 99.8th percentile over all the images' pixels.
    """
    return np.array([
        np.percentile(np.concatenate([image[c].ravel()[::3] for image in images]), [1, 99.8])
        for c in range(len(images[0]))
    ])


def outline(rgb: np.ndarray, nuclei: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Draw the outlines of nuclei (white) and cells (yellow) into a colour picture (a copy)."""
    if nuclei.shape != rgb.shape[:2] or cells.shape != rgb.shape[:2]:
        raise MorphobenchError(
            f"have the shapes {nuclei.shape} and {cells.shape}, the image {rgb.shape[:2]}", "segmentation labels"
        )
    out = rgb.copy()
    out[find_boundaries(cells, mode="inner")] = CELL_LINE
    out[find_boundaries(nuclei, mode="inner")] = NUCLEUS_LINE
    return out


def montage(rows: Mapping[str, Sequence[np.ndarray]], side: int, path: Path) -> Path:
    """Write one PNG with a heading and a row of pictures for each label.

    Parameters
    ----------
    rows : mapping of str to sequence of ndarray
        Pictures, uint8, shape (H, W, 3), of any sizes.
    side : int
        Longest side of a picture in the montage, in pixels; larger ones are made smaller, never larger
        than twice their size.
    path : Path

    Raises
    ------
    MorphobenchError
        There is not a single picture.
    """
    rows = {label: pictures for label, pictures in rows.items() if len(pictures)}
    if not rows:
        raise MorphobenchError("has no picture to show", str(path))
    font = ImageFont.load_default(size=TEXT)
    thumbs = {label: [_thumb(p, side) for p in pictures] for label, pictures in rows.items()}
    width = max(sum(t.width + GAP for t in row) for row in thumbs.values()) + GAP
    heights = [max(t.height for t in row) + TEXT + 2 * GAP for row in thumbs.values()]
    canvas = Image.new("RGB", (max(width, 240), sum(heights) + GAP), "white")
    pen = ImageDraw.Draw(canvas)
    y = GAP
    for (label, row), height in zip(thumbs.items(), heights, strict=True):
        pen.text((GAP, y - 5), " ".join(label.split())[:80], fill=(20, 20, 20), font=font)
        x = GAP
        for thumb in row:
            canvas.paste(thumb, (x, y + TEXT + GAP // 2))
            x += thumb.width + GAP
        y += height
    with whole(path) as tmp:
        canvas.save(tmp, format="PNG", optimize=True)
    return path


def contact_sheet(pictures: Sequence[np.ndarray], words: Sequence[str], path: Path, side: int = 240, columns: int = 4
                  ) -> Path:
    """Write one PNG of pictures in rows, each with its text below.

    Parameters
    ----------
    pictures : sequence of ndarray
        uint8, shape (H, W, 3), of any sizes.
    words : sequence of str
        One text per picture; wrapped to its width, lines kept.
    path : Path
    side : int
        Longest side of a picture in the sheet, in pixels; see `montage`.

    Raises
    ------
    MorphobenchError
        There is not a single picture.
    """
    if not len(pictures):
        raise MorphobenchError("has no picture to show", str(path))
    size = 13
    font = ImageFont.load_default(size=size)
    thumbs = [_thumb(p, side) for p in pictures]
    lines = [[line for text in said.splitlines() for line in wrap(text, round(side / (0.58 * size)))] for said in words]
    rows = [slice(i, i + columns) for i in range(0, len(thumbs), columns)]
    heights = [max(t.height for t in thumbs[r]) + (size + 3) * max(len(k) for k in lines[r]) + 3 * GAP for r in rows]
    canvas = Image.new("RGB", (min(columns, len(thumbs)) * (side + GAP) + GAP, sum(heights) + GAP), "white")
    pen = ImageDraw.Draw(canvas)
    y = GAP
    for row, height in zip(rows, heights, strict=True):
        for i, (thumb, said) in enumerate(zip(thumbs[row], lines[row], strict=True)):
            x = GAP + i * (side + GAP)
            canvas.paste(thumb, (x, y))
            for k, line in enumerate(said):
                pen.text((x, y + thumb.height + GAP // 2 + k * (size + 3)), line, fill=(20, 20, 20), font=font)
        y += height
    with whole(path) as tmp:
        canvas.save(tmp, format="PNG", optimize=True)
    return path


def _thumb(picture: np.ndarray, side: int) -> Image.Image:
    image = Image.fromarray(np.ascontiguousarray(picture))
    scale = min(side / max(image.size), 2.0)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)


def render_crops(
    samples: Mapping[str, Sequence[np.ndarray]], channels: Sequence[str], path: Path, side: int = 112
) -> Path:
    """Draw a sample of crops, one row per label, all at one brightness.

    Parameters
    ----------
    samples : mapping of str to sequence of ndarray
        For each label some crops, uint8, shape (C, H, W); about six fit the page.
    channels : sequence of str
        Names of the C channels.
    path : Path
        PNG to write.
    """
    every = [crop for crops in samples.values() for crop in crops]
    if not every:
        raise MorphobenchError("has no picture to show", str(path))
    limits = display_limits(every)
    return montage({k: [composite(c, channels, limits) for c in v] for k, v in samples.items()}, side, path)


def render_outlines(
    samples: Mapping[str, Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]],
    channels: Sequence[str],
    path: Path,
    side: int = 340,
) -> Path:
    """Draw a sample of fields with the outlines of nuclei and cells, one row per label.

    Parameters
    ----------
    samples : mapping of str to sequence of (image, nuclei, cells)
        Image of shape (C, H, W) and two label images of shape (H, W), 0 for background; about two a label.
    channels : sequence of str
        Names of the C channels.
    path : Path
        PNG to write.
    """
    every = [image for triples in samples.values() for image, _, _ in triples]
    if not every:
        raise MorphobenchError("has no picture to show", str(path))
    limits = display_limits(every)
    return montage(
        {k: [outline(composite(i, channels, limits), n, c) for i, n, c in v] for k, v in samples.items()}, side, path
    )


def render_flagged(
    fields: Sequence[tuple[np.ndarray, str]], usual: Sequence[np.ndarray], channels: Sequence[str], path: Path
) -> Path:
    """Draw flagged fields, each with its name and the reason below, at the brightness of typical fields.

    Parameters
    ----------
    fields : sequence of (image, words)
        Image of shape (C, H, W).
    usual : sequence of ndarray
        Some fields that were not flagged, shape (C, H, W): they set what is drawn black and full, so that what is too
        dark or too bright looks it. Where there are none, the flagged ones do.
    channels : sequence of str
        Names of the C channels.
    path : Path
        PNG to write.
    """
    if not fields:
        raise MorphobenchError("has no picture to show", str(path))
    limits = display_limits(usual or [image for image, _ in fields])
    return contact_sheet([composite(i, channels, limits) for i, _ in fields], [words for _, words in fields], path)
