"""Assays of a few small fields, drawn from a seed."""

import numpy as np
import pandas as pd
import tifffile

from benchmark.assays.fieldtable import make_assay
from benchmark.base.tables import (
    BATCH,
    COMPOUND,
    CONCENTRATION,
    CONTROL,
    LABEL,
    PLATE,
    REPLICATE,
    SITE,
    WELL,
)

CHANNELS = ("DNA", "Tubulin", "Actin")


def draw(seed, size, cells):
    """Channels (3, size, size) uint16 of round cells on a dim, noisy background."""
    rng = np.random.default_rng(seed)
    image = rng.normal(2000, 60, (3, size, size))
    y, x = np.mgrid[:size, :size]
    side = int(np.ceil(np.sqrt(max(cells, 1))))
    step = size / side
    for i in range(cells):
        cy, cx = (i // side + 0.5) * step, (i % side + 0.5) * step
        r2 = (y - cy) ** 2 + (x - cx) ** 2
        image[0] += 20000 * (r2 < 7**2) * rng.uniform(0.9, 1.1, r2.shape)
        for channel in (1, 2):
            image[channel] += 9000 * (r2 < 14**2) * rng.uniform(0.7, 1.3, r2.shape)
    return np.clip(image, 0, 65535).astype(np.uint16)


def small_assay(root, wells=2, sites=1, size=32, cells=1, name="small"):
    """Multi-page TIFF fields under awkward names; ``cells`` is a number, or one for each field in turn."""
    root.mkdir(parents=True, exist_ok=True)
    rows = []
    for w in range(wells):
        for s in range(1, sites + 1):
            count = cells if isinstance(cells, int) else cells[len(rows)]
            file = f"plate, \"1\" µ/w {w} s{s}.tif"
            (root / file).parent.mkdir(exist_ok=True)
            tifffile.imwrite(root / file, draw(1000 * w + s, size, count), photometric="minisblack")
            row = {BATCH: "b", PLATE: "p, \"1\" µ", WELL: f"=A{w:02d}", SITE: s, REPLICATE: "1", COMPOUND: f"c{w}",
                   CONCENTRATION: 1.0, LABEL: "x", CONTROL: ""}
            for i, channel in enumerate(CHANNELS):
                row |= {f"Path_{channel}": file, f"Plane_{channel}": i}
            rows.append(row)
    return make_assay(name, root, pd.DataFrame(rows), CHANNELS, single_compound_labels="refuse")
