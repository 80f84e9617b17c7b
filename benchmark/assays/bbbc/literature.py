"""Published results on BBBC021, and whether they can be compared with a study of it."""

from __future__ import annotations

from dataclasses import dataclass

#: Kinds of assay that the published results are of.
BBBC021_KINDS = ("bbbc021", "bbbc021-profiles")


@dataclass(frozen=True)
class Published:
    """A published accuracy on the 103 treatments of BBBC021.

    ``profiles_only`` says whether it can be set beside a study of published well means (which has no single cells and
    no images), ``why`` why or why not.
    """

    source: str
    method: str
    protocol: str
    percent: str
    profiles_only: bool
    why: str


_CELLS = "made from single cells, which this table of well means no longer has"
_IMAGES = "made from images, which this table does not have"
PUBLISHED: tuple[Published, ...] = (
    Published("Ljosa et al. 2013, J Biomol Screen 18:1321", "means", "NSC", "83", True,
              "well means of CellProfiler features; cells were first scaled by the plate's DMSO cells (1st and 99th "
              "percentile), which well means cannot repeat"),
    Published("Ljosa et al. 2013", "Kolmogorov-Smirnov", "NSC", "83", False, _CELLS),
    Published("Ljosa et al. 2013", "normal vector of a linear SVM", "NSC", "81", False, _CELLS),
    Published("Ljosa et al. 2013", "Gaussian mixture", "NSC", "83", False, _CELLS),
    Published("Ljosa et al. 2013", "factor analysis, then means", "NSC", "94", False, _CELLS),
    Published("Singh et al. 2014, J Microsc 256:231", "means, illumination corrected per plate", "NSC", "90", False,
              "other illumination correction, so other features"),
    Published("Ando et al. 2017, bioRxiv 161422", "deep metric network + TVN", "NSC / NSCB", "96 / 95", False, _IMAGES),
    Published("Kensert et al. 2019, SLAS Discov 24:466", "fine-tuned ResNet50, InceptionV3, InceptionResnetV2",
              "leave one compound out", "95–97", False, _IMAGES),
)


def literature(kind: str, imaged: bool) -> list[tuple[Published, str]]:
    """Published results for an assay, each with words on whether it can be compared; none for other assays.

    Parameters
    ----------
    kind : str
        Of the study's assay.
    imaged : bool
        Whether the study has images (else well means only).
    """
    if kind not in BBBC021_KINDS:
        return []
    return [(p, "with the same protocol's column; other software and features" if imaged
             else ("roughly: " if p.profiles_only else "no: ") + p.why) for p in PUBLISHED]
