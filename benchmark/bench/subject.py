"""What is measured on: a study's images, read and checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmark.assays.fieldtable import Assay
from benchmark.base.cluster import Cluster
from benchmark.base.errors import MorphobenchError
from benchmark.base.tasks import RunTasks
from benchmark.quality.fields import Sound
from benchmark.workflow.fields import check_images
from benchmark.workflow.session import Session, jobs_of, open_session, threads_of
from benchmark.workflow.study import load_study


@dataclass(frozen=True)
class Subject:
    """A study's images, read and checked."""

    session: Session
    sound: Sound

    @property
    def assay(self) -> Assay:
        """Its fields, without bad images."""
        return self.sound.assay

    @property
    def assay_hash(self) -> str:
        """Hash of its field table and images."""
        return self.sound.assay_hash

    @property
    def run_tasks(self) -> RunTasks:
        """Worker processes."""
        return self.session.run_tasks

    @property
    def folder(self) -> Path:
        """``runs/<study>``."""
        return self.session.folder


def subject_of(study: str) -> Subject:
    """Read and check a study's images.

    Raises
    ------
    MorphobenchError
        The study or its images have faults, or it has none.
    """
    jobs = jobs_of(0)
    session = open_session(load_study(study), Cluster(jobs, threads_of(jobs)))
    assay = session.study.assay.load(session.place)
    if not assay.channels:
        raise MorphobenchError("make bench needs images, and this assay comes as profiles without any",
                               f"study {session.study.name}", "Use a study with images.")
    return Subject(session, check_images(session, assay))
