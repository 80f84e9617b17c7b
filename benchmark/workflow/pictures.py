"""A few crops and segmented fields of each label, for the report's pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from benchmark.base.tables import COMPOUND, CONCENTRATION, FIELD_KEY, LABEL, PLATE, SITE, WELL
from benchmark.cellprofiler.measure import Measured
from benchmark.crops.settings import CropSettings
from benchmark.images.reading import read_field, read_plane
from benchmark.report.gallery import render_crops, render_flagged, render_outlines
from benchmark.workflow.context import StudyContext
from benchmark.workflow.measured import object_roles_of

CROPS_SHOWN, OUTLINES_SHOWN = 6, 2
FLAGGED_SHOWN = 24
#: So many fields that are not flagged set the brightness of those that are.
USUAL_SHOWN = 12


def spread_sample(table: pd.DataFrame, n: int) -> dict[str, pd.DataFrame]:
    """``n`` rows of each label, from as many compounds as there are, the highest concentration first.

    The choice depends on the table alone, so a report shows the same pictures each time.
    """
    chosen = {}
    for label, rows in table.groupby(LABEL):
        ordered = rows.sort_values([CONCENTRATION, *FIELD_KEY], ascending=[False, True, True, True], kind="stable")
        turn = ordered.groupby(COMPOUND).cumcount()
        chosen[str(label)] = ordered.assign(_turn=turn).sort_values(["_turn", COMPOUND], kind="stable").head(n)
    return chosen


def render_samples(context: StudyContext, folder: Path) -> dict[str, Path]:
    """Draw the pictures that the study's methods call for; headings to PNG files. None without images."""
    pictures: dict[str, Path] = {}
    if not context.assay.channels:
        return pictures
    if len(context.fields.flags):
        pictures[flagged_heading(context)] = draw_flagged(context, folder / "flagged.png")
    methods = context.study.methods
    cnn = next((m for m in reversed(methods) if m.crop_settings is not None and m.labels == "true"), None)
    if cnn is not None and cnn.crop_settings is not None:
        heading = f"Crops as the network sees them ({cnn.crop_settings.summary})"
        pictures[heading] = _draw_crops(context, cnn.crop_settings, f"the method {cnn.name}", folder / "crops.png")
    if any(m.arm == "classical" and "cellprofiler" in m.pipelines for m in methods):
        outlines = _draw_outlines(context, folder / "outlines.png")
        if outlines is not None:
            pictures[f"Segmentation by {context.program('cellprofiler')}"] = outlines
    return pictures


def flagged_heading(context: StudyContext) -> str:
    """How many fields were flagged, what became of them, and which are shown."""
    n = len(context.fields.flags.drop_duplicates(FIELD_KEY))
    fate = "left out" if context.study.quality.flagged == "leave_out" else "kept"
    shown = "" if n <= FLAGGED_SHOWN else f"; the {FLAGGED_SHOWN} that deviate most"
    return f"Flagged fields ({n} of {len(context.fields.whole.assay.fields)}, {fate}{shown})"


def worst_flagged(flags: pd.DataFrame, n: int) -> pd.DataFrame:
    """The ``n`` flagged fields that deviate most, a row each, in the order of plate, well and site.

    Returns
    -------
    DataFrame
        `FIELD_KEY` and ``reason``: all of a field's reasons, the strongest first, a line each.
    """
    ordered = flags.assign(_size=flags["deviations"].abs()).sort_values("_size", ascending=False, kind="stable")
    fields = ordered.groupby(FIELD_KEY, sort=False)["reason"].agg("\n".join).reset_index()
    return fields.head(n).sort_values(FIELD_KEY, kind="stable").reset_index(drop=True)


def draw_flagged(context: StudyContext, path: Path) -> Path:
    """Write a contact sheet of the flagged fields that deviate most, in the brightness of those not flagged."""
    fields = context.fields.whole.assay.fields
    rows = worst_flagged(context.fields.flags, FLAGGED_SHOWN).merge(fields, on=FIELD_KEY, how="left")
    drawn = []
    for _, row in rows.iterrows():
        name = _row_title(context, f"{row[PLATE]}, well {row[WELL]}, site {row[SITE]}")
        drawn.append((read_field(context.fields.whole.assay, row), f"{name}\n{row['reason']}"))
    unusual = pd.MultiIndex.from_frame(pd.concat([context.fields.flags[FIELD_KEY], context.fields.lost[FIELD_KEY]]))
    sound = fields[~pd.MultiIndex.from_frame(fields[FIELD_KEY]).isin(unusual)]
    usual = sound.iloc[:: max(1, len(sound) // USUAL_SHOWN)].head(USUAL_SHOWN)
    return render_flagged(drawn, [read_field(context.fields.whole.assay, row) for _, row in usual.iterrows()],
                          context.fields.whole.assay.channels, path)


def _draw_crops(context: StudyContext, settings: CropSettings, where: str, path: Path) -> Path:
    """The first crop of a few fields of each label."""
    from benchmark.crops.reader import open_crops

    crops = open_crops(*context.crops(settings, where))
    treated = context.assay.treated
    having, first = np.unique(crops.field, return_index=True)
    place = dict(zip(having.tolist(), first.tolist(), strict=True))
    samples = {}
    for label, rows in spread_sample(treated[treated.index.isin(having)], CROPS_SHOWN).items():
        pixels = crops.batch(np.array([place[i] for i in rows.index]))
        samples[_row_title(context, label)] = list((pixels / 257).astype(np.uint8) if pixels.dtype == np.uint16
                                                  else pixels)
    return render_crops(samples, crops.channels, path)


def _draw_outlines(context: StudyContext, path: Path) -> Path | None:
    """Outlines of nuclei and cells in a few fields of each label; None where the pipeline saves no masks."""
    measured = context.measured["cellprofiler"]
    treated = context.assay.treated
    samples = {}
    for label, rows in spread_sample(treated, OUTLINES_SHOWN).items():
        triples = [_outlined(context, measured, row) for _, row in rows.iterrows()]
        samples[_row_title(context, label)] = [t for t in triples if t is not None]
    if not any(samples.values()):
        return None
    return render_outlines(samples, context.assay.channels, path)


def _row_title(context: StudyContext, label: str) -> str:
    """A picture may be passed on without its page, so it says itself that nothing in it was imaged."""
    return f"{label} (SIMULATED)" if context.assay.simulated else label


def _outlined(context: StudyContext, measured: Measured, row: pd.Series
              ) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    key = tuple(row[FIELD_KEY])
    roles = object_roles_of(context.study)
    masks = [measured.mask_path(key, name) for name in (roles.nuclei, roles.cells)]
    if any(m is None for m in masks):
        return None
    nuclei, cells = (read_plane(m, 0) for m in masks if m is not None)
    return read_field(context.assay, row), nuclei, cells
