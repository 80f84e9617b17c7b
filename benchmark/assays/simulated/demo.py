"""The simulated assay: which plates, wells and treatments there are, and writing them to disk.

It exists so that the whole suite can be tried and tested without data. Figures from it say nothing about
real compounds or methods; whatever shows them must say that they are simulated (`Assay.simulated`).
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import tifffile
from pydantic import Field, model_validator

from benchmark.assays.fieldtable import Assay, make_assay
from benchmark.assays.registry import ASSAYS, AssaySettings, Place
from benchmark.assays.simulated.demo_draw import CHANNELS, DRAWING, Effect, Optics, draw_field
from benchmark.base.errors import MorphobenchError
from benchmark.base.files import digest, read_json, whole, write_json
from benchmark.base.tables import (
    BATCH,
    CELL_LINE,
    COMPOUND,
    CONCENTRATION,
    CONTROL,
    LABEL,
    PLATE,
    REPLICATE,
    SITE,
    WELL,
    path_column,
    plane_column,
)
from benchmark.base.tasks import RunTasks, run_serially

DMSO = "DMSO"
MECHANISMS = ("Microtubule destabilizers", "Actin disruptors", "DNA damage", "Eg5 inhibitors")
DONE = "made.json"
SOURCE = (
    "Simulated: drawn by code from a seed, not imaged. Figures from it show that the suite works; they say nothing "
    "about real compounds, nor about which method is better on real images."
)
# Streams of random numbers, so that changing one part of the design leaves the others alone.
_COMPOUNDS, _PLATES, _LAYOUT, _FIELDS = range(4)


@ASSAYS.register
class DemoAssaySettings(AssaySettings):
    """The simulated assay: what it holds and how hard it is.

    Each plate carries every treatment (mechanism × compound × concentration) ``replicates`` times and
    ``negative_wells`` wells of DMSO.
    """

    kind: Literal["demo"] = "demo"
    seed: int = Field(1, ge=0, description="Everything drawn depends on it.")
    difficulty: float = Field(1.0, gt=0, le=10, description="0.5 is easier, 2 harder: weaker effects, more noise.")
    size: int = Field(256, ge=64, le=2048, description="Height and width of a field in pixels.")
    cells: float = Field(30, ge=2, le=500, description="Mean number of cells in an untreated field.")
    mechanisms: int = Field(4, ge=2, le=4)
    compounds_per_mechanism: int = Field(3, ge=2, le=8)
    concentrations: int = Field(2, ge=1, le=4)
    batches: int = Field(2, ge=1, le=6)
    plates_per_batch: int = Field(2, ge=1, le=6)
    replicates: int = Field(1, ge=1, le=4, description="Wells of each treatment on each plate.")
    negative_wells: int = Field(6, ge=0, le=32, description="Wells of DMSO on each plate.")
    fields_per_well: int = Field(2, ge=1, le=9)

    @model_validator(mode="after")
    def _fits_on_a_plate(self) -> DemoAssaySettings:
        if self.wells_per_plate > 384:
            raise ValueError(f"{self.wells_per_plate} wells a plate do not fit on a 384-well plate")
        return self

    @property
    def wells_per_plate(self) -> int:
        """Wells on each plate, controls included."""
        treatments = self.mechanisms * self.compounds_per_mechanism * self.concentrations
        return treatments * self.replicates + self.negative_wells

    def load(self, place: Place) -> Assay:
        """Draw the demo assay, once for its settings, and load it."""
        key = demo_key(self)
        with place.stage("demo assay", key) as facts:
            assay = make_demo(self, place.folder / "assay" / key, run_tasks=place.run_tasks)
            facts["detail"] = f"{len(assay.fields)} simulated fields"
        return assay


class WellTask(NamedTuple):
    """Everything that drawing one well needs; plain values, so that it travels to any worker."""

    folder: str
    plate: str
    well: str
    size: int
    cells: float
    effect: dict[str, object]
    optics: dict[str, object]
    seeds: tuple[tuple[int, ...], ...]  # entropy of each field


def demo_key(settings: DemoAssaySettings) -> str:
    """What the images depend on, hashed: the settings, what they lead to, and the version of the drawing."""
    effects = [(name, dose, label, asdict(effect)) for name, dose, label, effect in demo_treatments(settings)]
    return digest({"settings": settings.model_dump(), "drawing": DRAWING, "effects": effects,
                   "optics": [asdict(o) for o in _optics(settings)]})


def make_demo(settings: DemoAssaySettings, folder: Path, run_tasks: RunTasks = run_serially) -> Assay:
    """Draw the demo assay into a folder, unless it is there already.

    One 16-bit TIFF a channel, ``fields.csv`` (the field table), and ``made.json`` (what it was made from).
    The same settings give the same pixels, whatever the number of workers.

    Parameters
    ----------
    settings : DemoAssaySettings
        The ``assay:`` block of the study.
    folder : Path
        Appears whole or not at all. A demo made from other settings is replaced.
    run_tasks : callable, optional
        ``run_tasks(function, tasks, label)``: runs tasks in parallel and yields results in any order.

    Returns
    -------
    Assay
        With ``simulated`` set.

    Raises
    ------
    MorphobenchError
        The folder exists and holds something other than a demo assay.
    """
    if _is_made(settings, folder):
        return demo_assay(settings, folder)
    if folder.exists() and not (folder / DONE).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise MorphobenchError("is in the way: it is no demo assay, so it is not replaced", str(folder),
                               "Move it, or choose another folder.")
    table = demo_fields(settings)
    old = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.old")
    with whole(folder) as tmp:
        try:
            for plate in table[PLATE].unique():
                (tmp / "images" / plate).mkdir(parents=True)
            for _ in run_tasks(draw_well, _tasks(settings, table, tmp.absolute()), "Drawing the demo assay"):
                pass
            table.to_csv(tmp / "fields.csv", index=False)
            write_json(tmp / DONE, {"key": demo_key(settings), "drawing": DRAWING, "settings": settings.model_dump(),
                                    "fields": len(table), "source": SOURCE})
            if (folder / DONE).is_file():
                folder.replace(old)  # made from other settings, or incomplete
        except BaseException:
            shutil.rmtree(tmp, ignore_errors=True)
            raise
    shutil.rmtree(old, ignore_errors=True)
    return demo_assay(settings, folder)


def demo_assay(settings: DemoAssaySettings, folder: Path) -> Assay:
    """Load a demo assay that `make_demo` has drawn; nothing is drawn.

    Raises
    ------
    MorphobenchError
        It is not there, is incomplete, or was made from other settings.
    """
    if not _is_made(settings, folder):
        raise MorphobenchError("holds no demo assay made from these settings", str(folder),
                               "Run the study again: the assay is drawn first.")
    table = pd.read_csv(folder / "fields.csv", keep_default_na=False,
                        dtype={c: str for c in (BATCH, PLATE, WELL, COMPOUND, LABEL, CONTROL, CELL_LINE)})
    table[CONCENTRATION] = table[CONCENTRATION].astype(float)
    return make_assay("demo", folder, table, CHANNELS, simulated=True, source=SOURCE)


def _is_made(settings: DemoAssaySettings, folder: Path) -> bool:
    """Whether the folder holds every image of these settings."""
    if not (folder / DONE).is_file() or read_json(folder / DONE).get("key") != demo_key(settings):
        return False
    table = demo_fields(settings)
    return (folder / "fields.csv").is_file() and all(
        (folder / path).is_file() for c in CHANNELS for path in table[path_column(c)])


def demo_treatments(settings: DemoAssaySettings) -> list[tuple[str, float, str, Effect]]:
    """Compound, concentration (µM), mechanism and effect of every treatment.

    Compounds of one mechanism differ in strength, in how many cells respond, and in effects beside the
    mechanism, and mechanisms share features (both anti-mitotic ones arrest cells; two shrink them), so
    that predicting a compound that was never seen is a real problem. Low doses are near to DMSO.
    """
    rng = np.random.default_rng(np.random.SeedSequence([settings.seed, _COMPOUNDS]))
    treatments = []
    for m, mechanism in enumerate(MECHANISMS[: settings.mechanisms]):
        for c in range(settings.compounds_per_mechanism):
            potency, reach = rng.uniform(0.6, 1.0), rng.uniform(0.55, 0.85)
            # What the compound does beside its mechanism: some of another one, and shifts of its own.
            second, share = int((m + rng.integers(1, 4)) % 4), rng.uniform(0.0, 0.2)
            aside = rng.normal(0, 1, 6)
            top = float(rng.choice([1.0, 3.0, 10.0, 30.0]))
            for d in range(settings.concentrations):
                fall = settings.concentrations - 1 - d  # steps below the highest dose, tenfold each
                strength = min(potency * 0.65**fall / settings.difficulty**0.6, 1.0)
                penetrance = min(reach * 0.7**fall / settings.difficulty**0.6, 0.95)
                effect = _effect(m, second, share, strength, penetrance, aside * 0.6**fall)
                treatments.append((f"SIM-{m + 1}{c + 1:02d}", top / 10**fall, mechanism, effect))
    return treatments


def _effect(mechanism: int, second: int, share: float, strength: float, penetrance: float,
            aside: np.ndarray) -> Effect:
    """A mechanism at some strength, a share of a second one, and the compound's own shifts."""
    primary = np.zeros(4)
    primary[mechanism] += strength
    primary[second] += share * strength
    destabilise, disrupt, damage, arrest = primary
    toxic = strength * penetrance
    gain = np.exp(np.array([0.05, 0.09, 0.09]) * aside[3:])
    return Effect(
        # Cells without microtubules arrest in mitosis too, and those stopped by Eg5 have odd microtubules after.
        destabilise=float(min(destabilise + 0.2 * arrest, 1)),
        disrupt=float(min(disrupt, 1)),
        damage=float(min(damage, 1)),
        arrest=float(min(0.5 * arrest + 0.15 * destabilise, 1)),
        penetrance=penetrance,
        density=(0.75, 0.75, 0.6, 0.75)[mechanism] ** toxic * float(np.exp(0.10 * aside[0])),
        nucleus=float(np.exp(0.03 * aside[1])),
        cell=float(np.exp(0.05 * aside[2])),
        gain=_three(gain),
    )


def demo_fields(settings: DemoAssaySettings) -> pd.DataFrame:
    """The field table: treatments and DMSO at random wells of every plate, so that the position says nothing."""
    treatments = demo_treatments(settings)
    rows = []
    for p, (batch, plate) in enumerate(_plates(settings)):
        contents = [(name, dose, label, "", r) for r in range(settings.replicates)
                    for name, dose, label, _ in treatments]
        contents += [(DMSO, 0.0, "", "negative", r) for r in range(settings.negative_wells)]
        rng = np.random.default_rng(np.random.SeedSequence([settings.seed, _LAYOUT, p]))
        wells = rng.permutation(_wells(len(contents)))[: len(contents)]
        for (name, dose, label, control, r), well in zip(contents, wells, strict=True):
            repeats = settings.negative_wells if control else settings.replicates
            for site in range(1, settings.fields_per_well + 1):
                files = {path_column(c): f"images/{plate}/{well}_s{site}_{c}.tif" for c in CHANNELS}
                rows.append({BATCH: batch, PLATE: plate, WELL: str(well), SITE: site, REPLICATE: p * repeats + r + 1,
                             COMPOUND: name, CONCENTRATION: dose, LABEL: label, CONTROL: control, CELL_LINE: "",
                             **files,
                             **{plane_column(c): 0 for c in CHANNELS}})
    return pd.DataFrame(rows)


def _plates(settings: DemoAssaySettings) -> list[tuple[str, str]]:
    return [(f"Batch{b + 1}", f"Batch{b + 1}-Plate{p + 1}")
            for b in range(settings.batches) for p in range(settings.plates_per_batch)]


def _wells(wanted: int) -> list[str]:
    """Names of the wells of the smallest layout with room: the inner 60 of 96, all 96, or all 384."""
    for rows, columns in (("BCDEFG", range(2, 12)), ("ABCDEFGH", range(1, 13)), ("ABCDEFGHIJKLMNOP", range(1, 25))):
        if len(rows) * len(columns) >= wanted:
            return [f"{r}{c:02d}" for r in rows for c in columns]
    raise AssertionError("the settings allow no more than 384 wells")


def _optics(settings: DemoAssaySettings) -> list[Optics]:
    """Staining, lamp and camera of each plate: a batch's share and a plate's own."""
    hard = settings.difficulty**0.5
    optics = []
    for b in range(settings.batches):
        rng = np.random.default_rng(np.random.SeedSequence([settings.seed, _PLATES, b]))
        batch_gain, batch_background = rng.normal(0, 0.20 * hard, 3), rng.normal(0, 0.10, 3)
        for _ in range(settings.plates_per_batch):
            gain = np.exp(batch_gain + rng.normal(0, 0.10 * hard, 3))
            background = np.array(Optics().background) * np.exp(batch_background + rng.normal(0, 0.06, 3))
            optics.append(Optics(_three(gain), _three(background), _three(rng.uniform(0.12, 0.38, 3)),
                                 (float(rng.uniform(0.3, 0.7)), float(rng.uniform(0.3, 0.7))), 0.8,
                                 settings.difficulty**0.5))
    return optics


def _three(values: Iterable[float]) -> tuple[float, float, float]:
    a, b, c = (float(v) for v in values)
    return a, b, c


def _tasks(settings: DemoAssaySettings, table: pd.DataFrame, folder: Path) -> list[WellTask]:
    """One task a well; the random numbers of a field depend on seed, plate, well and site alone."""
    effects = {(name, dose): effect for name, dose, _, effect in demo_treatments(settings)}
    optics = {plate: (i, o) for i, ((_, plate), o) in
              enumerate(zip(_plates(settings), _optics(settings), strict=True))}
    tasks = []
    for n, row in enumerate(table.drop_duplicates([PLATE, WELL]).to_dict("records")):
        number, plate_optics = optics[row[PLATE]]
        effect = effects.get((row[COMPOUND], row[CONCENTRATION]), Effect())
        seeds = tuple((settings.seed, _FIELDS, number, n, site) for site in range(settings.fields_per_well + 1))
        tasks.append(WellTask(str(folder), str(row[PLATE]), str(row[WELL]), settings.size,
                              settings.cells, asdict(effect), asdict(plate_optics), seeds))
    return tasks


def draw_well(task: WellTask) -> str:
    """Draw the fields of one well and write a TIFF for each channel.

    Wells differ in seeding and staining, and fields in focus, beside what the treatment does.
    """
    rng = np.random.default_rng(np.random.SeedSequence(task.seeds[0]))
    effect, optics = Effect(**task.effect), Optics(**task.optics)  # type: ignore[arg-type]
    cells = task.cells * float(rng.lognormal(0, 0.18 * optics.noise))
    stain = rng.lognormal(0, 0.06 * optics.noise, 3)
    gain = _three(np.array(optics.gain) * stain)
    for site, seed in enumerate(task.seeds[1:], 1):
        rng = np.random.default_rng(np.random.SeedSequence(seed))
        blur = float(np.clip(rng.normal(optics.blur, 0.15), 0.5, 1.6))
        field = draw_field(task.size, cells, effect, Optics(**{**task.optics, "gain": gain, "blur": blur}), rng)  # type: ignore[arg-type]
        for plane, channel in zip(field, CHANNELS, strict=True):
            # Without metadata nothing but the pixels decides the bytes of the file.
            tifffile.imwrite(Path(task.folder) / "images" / task.plate / f"{task.well}_s{site}_{channel}.tif", plane,
                             metadata=None, software=False, photometric="minisblack")
    return f"{task.plate} {task.well}"
