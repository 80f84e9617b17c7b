"""Which part of a cell each pixel of a crop shows, from the label masks of its field."""

from __future__ import annotations

import cv2
import numpy as np

from benchmark.base.errors import MorphobenchError
from benchmark.images.tiles import Box, cut

#: Names of the numbers in a region picture. Outside: beyond the field, or blacked out about a masked cell.
REGIONS = ("background", "cytoplasm", "nuclei", "outside")
BACKGROUND, CYTOPLASM, NUCLEI, OUTSIDE = range(4)


def cut_regions(nuclei: np.ndarray, cells: np.ndarray, boxes: np.ndarray, size: int, own: np.ndarray | None = None
                ) -> np.ndarray:
    """Regions of the crops of one field, cut and resized as the crops were, each pixel as its nearest one.

    A pixel of a nucleus counts as nucleus even where no cell was found around it.

    Parameters
    ----------
    nuclei, cells : ndarray of int, shape (H, W)
        Object numbers, 0 for none.
    boxes : ndarray of int, shape (n, 4)
        Top, left, height and width in pixels of the field (`benchmark.crops.reader.Crops.boxes`).
    size : int
        Side of a crop.
    own : ndarray of int, shape (n,), optional
        For crops cut with ``mask: true``: the number in ``cells`` of each crop's cell. What is not that cell was
        blacked out, and is ``outside``.

    Returns
    -------
    ndarray of uint8, shape (n, size, size)
        Indices of `REGIONS`.

    Raises
    ------
    MorphobenchError
        The masks differ in size.
    """
    if nuclei.shape != cells.shape or nuclei.ndim != 2:
        raise MorphobenchError(f"have the shapes {nuclei.shape} and {cells.shape}", "masks of nuclei and cells",
                               "Give two label images of one field.")
    field = np.where(nuclei > 0, NUCLEI, np.where(cells > 0, CYTOPLASM, BACKGROUND)).astype(np.uint8)
    inside = np.ones(field.shape, bool)
    out = np.empty((len(boxes), size, size), np.uint8)
    for i, values in enumerate(np.asarray(boxes).tolist()):
        kept = inside if own is None else cells == own[i]
        piece = cut(np.stack([field, kept.astype(np.uint8)]), Box(*values))  # zeros beyond the field: not kept
        codes = np.where(piece[1] > 0, piece[0], OUTSIDE).astype(np.uint8)
        # "Exact" takes the pixel under the centre; OpenCV's plain nearest is half a pixel off when shrinking.
        out[i] = cv2.resize(codes, (size, size), interpolation=cv2.INTER_NEAREST_EXACT)
    return out


def region_shares(weights: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """How values on the pixels of crops are distributed over regions.

    Parameters
    ----------
    weights : ndarray, shape (N, S, S)
        ≥ 0; all 1 for the shares of area.
    regions : ndarray of uint8, shape (N, S, S)

    Returns
    -------
    ndarray of float64, shape (N, 4)
        Rows sum to 1, in the order of `REGIONS`; nan where a crop's weights are all 0.
    """
    if weights.shape != regions.shape:
        raise MorphobenchError(f"has the shape {regions.shape}, the crops {weights.shape}", "regions of the crops")
    if (weights < 0).any():
        raise ValueError("weights below 0 cannot be shared out")
    parts = np.stack([np.where(regions == r, weights, 0).sum(axis=(1, 2), dtype=np.float64)
                      for r in range(len(REGIONS))], axis=1)
    total = parts.sum(axis=1, keepdims=True)
    return np.divide(parts, total, out=np.full(parts.shape, np.nan), where=total > 0)
