"""The page: one self-contained HTML file made from a comparison, run records and pictures."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from benchmark.base.errors import MorphobenchError
from benchmark.base.files import whole
from benchmark.evaluation.comparison import Comparison, Run
from benchmark.evaluation.metrics import FEWEST_CLUSTERS, REPORTED
from benchmark.report.data import data_section
from benchmark.report.dose import dose_rows
from benchmark.report.drawing import SIMULATED
from benchmark.report.figures import draw
from benchmark.report.grid import GRID_CITATIONS, draw_grid
from benchmark.report.saliency import CITATIONS as WHY_CITATIONS
from benchmark.report.saliency import draw_explanation
from benchmark.report.seeds import ENSEMBLE_CITATIONS, seed_section, shown_seed
from benchmark.report.words import answer, interval, p_value, percent, points

HERE = Path(__file__).parent
#: A picture larger than this is embedded in the page as a JPEG; the PNG beside the page stays unchanged.
PICTURE_BYTES = 600_000
#: Keys of a run record that have their own place on the page; the rest is listed unchanged.
SHOWN_KEYS = {
    "assay_hash", "split_hash", "versions", "device", "seconds", "peak_mib", "cellprofiler", "transductive", "control",
    "choices", "role", "summary", "data_lock", "features", "without_features", "predicts",
    "wells_given_the_training_mean",
}  # fmt: skip
#: What a study need not state.
UNSAID = {"held_out": "compound", "also_apart": "", "n_response": 0, "data_lock": ""}

CITATIONS = (
    "Kensert A, Harrison PJ, Spjuth O (2019). Transfer learning with deep convolutional neural networks for "
    "classifying cellular morphological changes. SLAS Discovery 24:466–475. doi:10.1177/2472555218818756 "
    "(reduction of crops to wells and treatments by medians).",
    "Ljosa V et al. (2013). Comparison of methods for image-based profiling of cellular morphological responses "
    "to small-molecule treatment. J Biomol Screen 18:1321–1329. doi:10.1177/1087057113503553 (holding whole "
    "compounds out).",
    "Wilson EB (1927). Probable inference, the law of succession, and statistical inference. J Am Stat Assoc "
    "22:209–212.",
    "McNemar Q (1947). Note on the sampling error of the difference between correlated proportions or "
    "percentages. Psychometrika 12:153–157.",
    "Holm S (1979). A simple sequentially rejective multiple test procedure. Scand J Stat 6:65–70.",
)
#: What measured, by the first word of its name and version.
PROGRAM_CITATIONS = {
    "CellProfiler": "Stirling DR et al. (2021). CellProfiler 4: improvements in speed, utility and usability. BMC "
                    "Bioinformatics 22:433. doi:10.1186/s12859-021-04344-9.",
    "cp_measure": "Muñoz AF et al. (2025). cp_measure: API-first feature extraction for image-based profiling "
                  "workflows. It computes CellProfiler's measurements.",
}
#: Captions of pictures by what their rows are.
CAPTIONS = {
    "label": "One row per label; all pictures at one brightness, so that rows can be compared. DNA blue, tubulin "
             "green, actin red where the assay has these stains; outlines, where drawn: nuclei white, cells yellow.",
    "field": "Flagged fields in the order of plate, well and site, in the brightness of fields that are not flagged. "
             "DNA blue, tubulin green, actin red where the assay has these stains.",
}
DOSE_CITATIONS = (
    "Zhang JH, Chung TDY, Oldenburg KR (1999). A simple statistical parameter for use in evaluation and validation "
    "of high throughput screening assays. J Biomol Screen 4:67–73.",
    "Ravkin I (2004). Quality measures for imaging-based cellular assays. Poster P12024, Society for Biomolecular "
    "Screening (V factor; computed as CellProfiler's CalculateStatistics does).",
    "Hill AV (1910). The possible effects of the aggregation of the molecules of haemoglobin on its dissociation "
    "curves. J Physiol 40:iv–vii.",
    "Venzon DJ, Moolgavkar SH (1988). A method for computing profile-likelihood-based confidence intervals. Appl Stat "
    "37:87–94. Kent JT (1982). Robust properties of likelihood ratio tests. Biometrika 69:19–27.",
)


def duration(seconds: Any) -> str:
    """``812.3`` → ``13 min 32 s``; anything that is not a number is left as text."""
    if not isinstance(seconds, int | float):
        return "–" if seconds is None else str(seconds)
    if seconds < 90:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 90 else f"{minutes} min {rest} s"


def _flat(value: Any) -> str:
    """A record's value as short text: ``name 1.0, other 2.1`` for a mapping of plain values."""
    if isinstance(value, Mapping) and all(not isinstance(v, Mapping | list) for v in value.values()):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    if isinstance(value, list | tuple) and all(isinstance(v, str | int | float) for v in value):
        return ", ".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def data_uri(path: Path) -> str:
    """A picture file as a ``data:`` address; a large PNG becomes a JPEG of bounded size.

    Raises
    ------
    MorphobenchError
        The file is missing or is neither SVG nor a picture that Pillow reads.
    """
    try:
        raw = path.read_bytes()
        kind = "image/svg+xml" if path.suffix == ".svg" else "image/png"
        if path.suffix != ".svg":
            with Image.open(io.BytesIO(raw)) as image:
                image.load()
                if len(raw) > PICTURE_BYTES or image.format != "PNG":
                    raw, kind = _jpeg(image.convert("RGB")), "image/jpeg"
    except OSError as error:
        raise MorphobenchError(f"cannot be put into the page ({error})", str(path), "Draw it again.") from error
    return f"data:{kind};base64,{base64.b64encode(raw).decode()}"


def _jpeg(image: Image.Image) -> bytes:
    """JPEG below `PICTURE_BYTES`: first by quality, then by size; colour at full resolution for thin lines."""
    while True:
        for quality in (90, 82, 74):
            buffer = io.BytesIO()
            image.save(buffer, format="JPEG", quality=quality, subsampling=0)
            if buffer.tell() <= PICTURE_BYTES or max(image.size) < 200:
                return buffer.getvalue()
        image = image.resize((image.width * 4 // 5, image.height * 4 // 5), Image.Resampling.LANCZOS)


def _accuracy_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """The accuracy table's cells, unit by unit; `first` marks where a unit begins."""
    rows: list[dict[str, Any]] = []
    for unit in REPORTED:
        table = comparison.accuracy[comparison.accuracy["unit"] == unit]
        for i, (_, row) in enumerate(table.iterrows()):
            rows.append({
                "unit": unit, "first": i == 0, "method": row["method"], "title": row["title"],
                "seed": shown_seed(comparison, row), "control": row["control"],
                "transductive": row["method"] in comparison.transductive,
                "count": f"{row['correct']}/{row['n']}", "percent": percent(row["accuracy"]),
                "interval": interval(row["low"], row["high"]),
                "cluster": interval(row["cluster_low"], row["cluster_high"]),
                "balanced": percent(row["balanced_accuracy"]), "chance": percent(row["chance"]),
                "n_labels": row["n_labels"],
            })  # fmt: skip
    return rows


def _pair_rows(comparison: Comparison) -> list[dict[str, Any]]:
    return [
        {
            "a": comparison.titles[row["method_a"]], "b": comparison.titles[row["method_b"]], "seed": row["seed"],
            "right": f"{row['correct_a']} – {row['correct_b']}",
            "difference": points(row["difference"]),
            "cluster": "–" if math.isnan(row["cluster_low"])
            else f"{points(row['cluster_low'])} to {points(row['cluster_high'])}",
            "only_a": row["b"], "only_b": row["c"], "p": p_value(row["p"]), "p_holm": p_value(row["p_holm"]),
            "p_compounds": p_value(row["p_compounds"]),
            # Not "clear": in the template that would be the mapping's own method.
            "differs": bool(row["p_holm"] < 0.05),
            "within": (over := comparison.spread.pair(row["method_a"], row["method_b"])) is not None
            and not over["apart"],
        }
        for _, row in comparison.pairs.iterrows()
    ]  # fmt: skip


def _run_rows(runs: Sequence[Run], comparison: Comparison) -> list[dict[str, Any]]:
    """What each run did and with what, from its record, in the comparison's order."""
    by_name = {run.name: run for run in runs}
    rows = []
    for name in comparison.methods:
        run = by_name[name]
        record = run.record
        rows.append({
            "name": name, "title": comparison.titles[name], "control": run.control,
            "summary": str(record.get("summary", "")),
            "unit": _flat(sorted(run.predictions["unit"].unique().tolist())),
            "seeds": _flat(sorted(run.predictions["seed"].unique().tolist())),
            "transductive": [str(tag) for tag in record.get("transductive") or []],
            "choices": dict(record.get("choices") or {}),
            "measured_by": program_of(record),
            "versions": _flat(record.get("versions", "–")),
            "hashes": f"assay {record['assay_hash']}, folds {record['split_hash']}"
            + (f", data lock {record['data_lock']}" if record.get("data_lock") else ""),
            "rest": {k: _flat(v) for k, v in record.items() if k not in SHOWN_KEYS and v not in (None, "", [], {})},
        })  # fmt: skip
    return rows


def program_of(record: Mapping[str, Any]) -> str:
    """Name and version of the program that measured what a run uses; empty where nothing was measured."""
    measured = record.get("cellprofiler")
    if not isinstance(measured, Mapping):
        return ""
    name = "cp_measure" if measured.get("origin") == "cp_measure" else "CellProfiler"
    return f"{name} {measured.get('version', '')}".strip()


def _programs(study: Mapping[str, Any], runs: Sequence[Run]) -> set[str]:
    """Names of the programs that measured anything on the page."""
    stated = [str(study.get("measured_by", "")), *(program_of(run.record) for run in runs)]
    return {text.split()[0] for text in stated if text} & set(PROGRAM_CITATIONS)


def cost_rows(costs: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The rows of the cost table; see `benchmark.workflow.costs.costs`."""
    return [{
        "what": row["what"], "used_by": "" if "total" in row else ", ".join(row["used_by"]) or "the whole study",
        "time": duration(row["seconds"]), "total": duration(row["total"]) if "total" in row else "",
        "device": str(row.get("device", "")),
        "memory": f"{row['peak_mib']:.0f} MiB" if "peak_mib" in row else "", "detail": str(row.get("detail", "")),
    } for row in costs]


def render(
    study: Mapping[str, Any],
    runs: Sequence[Run],
    comparison: Comparison,
    pictures: Mapping[str, Path],
    folder: Path,
    grid: Mapping[str, Any] | None = None,
    fields: Sequence[Mapping[str, Any]] = (),
    why: Mapping[str, Any] | None = None,
) -> Path:
    """Draw the figures into ``folder/figures`` and write ``folder/index.html``.

    Parameters
    ----------
    study : mapping
        ``name, title, description, simulated, source, scheme, n_folds, n_fields`` (None for an assay without
        images), ``n_wells, n_treatments, n_compounds, labels`` (label → number of the units compared), ``assay_hash,
        split_hash, morphobench`` (version). May say ``data`` (see `benchmark.report.data.data_section`), ``costs`` (as
        `benchmark.workflow.costs.costs` makes them), ``measured_by`` (program and version that measured),
        ``held_out`` (what a fold holds out: compound, cell line), ``n_response`` (wells of the
        dose series) and ``data_lock`` (hash of the lock file of fetched data).
    runs : sequence of Run
        Those that were compared.
    comparison : Comparison
    pictures : mapping of str to Path
        Further pictures (crops, outlines): heading → PNG.
    folder : Path
        Made if absent.
    grid : mapping, optional
        As `benchmark.report.grid.grid_section` makes it.
    fields : sequence of mapping
        Fields that were flagged or lost: ``plate, well, site, state, reason``.
    why : mapping, optional
        As `benchmark.report.saliency.explanation_section` makes it.

    Returns
    -------
    Path
        The page. It needs no other file and loads nothing from any server.
    """
    simulated = bool(study["simulated"])
    drawn = draw(comparison, folder / "figures", simulated)
    if grid and len(grid["table"]):
        drawn.append(draw_grid(grid["table"], folder / "figures", simulated))
    explained = draw_explanation(why["explanation"], folder / "figures", "explained", simulated) if why else []
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    html = environment.get_template("page.html").render(
        css=Markup((HERE / "page.css").read_text(encoding="utf-8")),  # noqa: S704 - our own file
        study=UNSAID | dict(study),
        simulated=SIMULATED if simulated else "",
        data=data_section(study.get("data", {})),
        answer=answer(comparison, simulated),
        comparison=comparison,
        several_seeds=comparison.accuracy["seed"].nunique() > 1,
        accuracy=_accuracy_rows(comparison),
        pairs=_pair_rows(comparison),
        seeds=seed_section(comparison),
        doses=dose_rows(comparison) if comparison.doses is not None else [],
        unit=comparison.unit,
        fewest=FEWEST_CLUSTERS,
        runs=_run_rows(runs, comparison),
        folds=comparison.folds.to_dict("records"),
        figures={
            kind: [(p, data_uri(p.svg)) for p in drawn if p.kind == kind]
            for kind in ("accuracy", "outcomes", "confusion", "dose", "grid")
        },
        grid=grid or {},
        why=why or {},
        # Photographs: as a picture of bounded size, not as drawings with a copy of each crop in them.
        explained=[(p, data_uri(p.png if p.kind in ("maps", "filters") else p.svg)) for p in explained],
        fields=list(fields),
        pictures=[(title, data_uri(path), CAPTIONS["field" if title.startswith("Flagged") else "label"])
                  for title, path in pictures.items()],
        costs=cost_rows(study.get("costs", ())),
        citations=(*CITATIONS, *(PROGRAM_CITATIONS[name] for name in sorted(_programs(study, runs))),
                   *(ENSEMBLE_CITATIONS if comparison.ensembles else ()),
                   *(DOSE_CITATIONS if comparison.doses is not None else ()),
                   *(GRID_CITATIONS if grid else ()), *(WHY_CITATIONS if why else ())),
    )
    page = folder / "index.html"
    with whole(page) as tmp:
        tmp.write_text(html, encoding="utf-8")
    return page
