"""Published results on BBBC021, and whether a study of it can be compared with them."""

from __future__ import annotations

from benchmark.assays.registry import Published

_CELLS = "made from single cells, which this table of well means no longer has"
_IMAGES = "made from images, which this table does not have"
#: Source, method, protocol, percent; whether it can be set beside a study of well means, and why or why not.
_ROWS: tuple[tuple[str, str, str, str, bool, str], ...] = (
    ("Ljosa et al. 2013, J Biomol Screen 18:1321", "means", "NSC", "83", True,
              "well means of CellProfiler features; cells were first scaled by the plate's DMSO cells (1st and 99th "
              "percentile), which well means cannot repeat"),
    ("Ljosa et al. 2013", "Kolmogorov-Smirnov", "NSC", "83", False, _CELLS),
    ("Ljosa et al. 2013", "normal vector of a linear SVM", "NSC", "81", False, _CELLS),
    ("Ljosa et al. 2013", "Gaussian mixture", "NSC", "83", False, _CELLS),
    ("Ljosa et al. 2013", "factor analysis, then means", "NSC", "94", False, _CELLS),
    ("Singh et al. 2014, J Microsc 256:231", "means, illumination corrected per plate", "NSC", "90", False,
              "other illumination correction, so other features"),
    ("Ando et al. 2017, bioRxiv 161422", "deep metric network + TVN", "NSC / NSCB", "96 / 95", False, _IMAGES),
    ("Kensert et al. 2019, SLAS Discov 24:466", "fine-tuned ResNet50, InceptionV3, InceptionResnetV2",
              "leave one compound out", "95–97", False, _IMAGES),
)


def literature(imaged: bool) -> tuple[Published, ...]:
    """Published accuracies on the 103 treatments of BBBC021, each with words on whether it can be compared.

    Parameters
    ----------
    imaged : bool
        Whether the study has the images (else the published well means only, without single cells).
    """
    same = "with the same protocol's column; other software and features"
    return tuple(
        Published(source, method, protocol, percent, same if imaged else ("roughly: " if roughly else "no: ") + why)
        for source, method, protocol, percent, roughly, why in _ROWS)
