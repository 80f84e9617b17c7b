"""From the assay as read to the fields that both arms see.

A field goes for both arms or for none, before folds are made: one whose images are bad, one that CellProfiler cannot
measure (the networks would otherwise be scored on other fields than the profiles), one that quality control leaves out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from benchmark.assays.fieldtable import Assay
from benchmark.base.files import digest
from benchmark.base.tables import FIELD_KEY
from benchmark.folds.fold import Split
from benchmark.folds.make import study_split
from benchmark.methods.context import Pipeline
from benchmark.quality.fields import Sound, flagged_fields, sound_assay, without_flagged, without_lost
from benchmark.workflow.measured import counts_if_any, field_counts
from benchmark.workflow.session import Session

if TYPE_CHECKING:
    from benchmark.cellprofiler.measure import Measured

QUALITY_STAGE = "quality of images"


@dataclass(frozen=True)
class Fields:
    """The fields of a study.

    Attributes
    ----------
    whole : Sound
        The assay without bad images only: what is measured, and what illumination is averaged over, so that a change
        of quality control changes neither.
    used : Sound
        What both arms see: also without fields that CellProfiler could not measure, and without what quality control
        leaves out. ``whole`` itself where nothing is left out.
    flags : DataFrame
        Quality flags, see `benchmark.quality.flags.flag_fields`.
    lost : DataFrame
        Fields of ``whole`` that CellProfiler could not measure: `FIELD_KEY` and ``reason``. They have no flags.
    """

    whole: Sound
    used: Sound
    flags: pd.DataFrame
    lost: pd.DataFrame

    @property
    def dropped(self) -> pd.DataFrame:
        """`FIELD_KEY` of the fields of ``whole`` that are not in ``used``."""
        keys = [pd.MultiIndex.from_frame(s.assay.fields[FIELD_KEY]) for s in (self.whole, self.used)]
        return self.whole.assay.fields.loc[~keys[0].isin(keys[1]), FIELD_KEY].reset_index(drop=True)

    def kept(self, table: pd.DataFrame) -> pd.DataFrame:
        """Rows of a table of fields or cells whose fields have not been left out."""
        if self.used is self.whole:
            return table
        gone = pd.MultiIndex.from_frame(self.dropped)
        return table[~pd.MultiIndex.from_frame(table[FIELD_KEY]).isin(gone)]


def check_images(session: Session, assay: Assay) -> Sound:
    """Look at every pixel of an assay (once), and leave out single fields whose images are bad.

    Raises
    ------
    FaultsError
        As `benchmark.quality.fields.sound_assay`.
    """
    return sound_assay(assay, session.folder / "checked", session.study.assay.lone_labels)


def settle_fields(session: Session, whole: Sound, measured: Mapping[Pipeline, Measured]) -> Fields:
    """The fields that both arms see, once CellProfiler has measured.

    Parameters
    ----------
    measured : mapping
        What each of the study's pipelines measured, of those that have run.

    Raises
    ------
    MorphobenchError
        More fields could not be measured than the study allows, or quality control leaves out too many; or as
        `benchmark.quality.fields.without_fields`.
    """
    study, lone = session.study, session.study.assay.lone_labels
    checked = session.folder / "checked"
    lost = lost_fields(whole.assay, measured)
    counts = _counts(session, measured)
    if study.quality.flagged == "off" or not whole.assay.channels:
        flags = flagged_fields(whole, study.quality, checked)
    else:
        with session.log.stage(QUALITY_STAGE, whole.assay_hash[:16]) as facts:
            flags = flagged_fields(whole, study.quality, checked, session.run_tasks, counts,
                                   lost if len(lost) else None)
            facts["detail"] = f"{len(whole.assay.fields)} fields"
    used = whole
    if len(lost):
        most = max(getattr(study, pipeline).failed_fields for pipeline in measured)
        used = without_lost(whole, lost, most, lone)
    if study.quality.flagged == "leave_out":
        used = without_flagged(used, flags, lone)
    return Fields(whole, used, flags, lost)


def _counts(session: Session, measured: Mapping[Pipeline, Measured]) -> pd.DataFrame | None:
    """Cells of each field, where quality control looks at them."""
    quality = session.study.quality
    if "cellprofiler" not in measured or not quality.cell_count or quality.flagged == "off":
        return None
    look = field_counts if quality.flagged == "leave_out" else counts_if_any
    return look(session.study, measured["cellprofiler"])


def lost_fields(assay: Assay, measured: Mapping[Pipeline, Measured]) -> pd.DataFrame:
    """Fields that any of some pipelines could not measure.

    Returns
    -------
    DataFrame
        `FIELD_KEY` and ``reason``, a row a field, in the order of the field table.
    """
    reasons: dict[tuple[object, ...], list[str]] = {}
    for pipeline, of in measured.items():
        prefix = "whole fields: " if pipeline == "whole_field" else ""
        for *key, reason in of.failed.itertuples(index=False, name=None):
            reasons.setdefault(tuple(key), []).append(f"{prefix}{reason}")
    keys = list(assay.fields[FIELD_KEY].itertuples(index=False, name=None))
    lost = assay.fields.loc[[key in reasons for key in keys], FIELD_KEY]
    said = ["; ".join(dict.fromkeys(reasons[key])) for key in keys if key in reasons]
    return lost.assign(reason=said).reset_index(drop=True)


def folds_of(session: Session, used: Sound) -> Split:
    """The folds of the study, made once its fields are settled; audited, whether made or loaded.

    Raises
    ------
    LeakError
        The folds on disk are not sound.
    MorphobenchError
        The assay has no folds of this scheme.
    """
    scheme = session.study.split
    path = session.folder / "splits" / f"{digest([used.assay_hash, scheme])}.json"
    return study_split(path, used.assay, used.assay_hash, scheme, used.hashes)
