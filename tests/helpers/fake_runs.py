"""A made-up but realistic study: 6 labels, 18 compounds, 55 treatments, 7 methods. All from seeds."""

from __future__ import annotations

import numpy as np
import pandas as pd

from benchmark.evaluation.comparison import Run

LABELS = (
    "Actin disruptors", "Aurora kinase inhibitors", "DNA damage", "Eg5 inhibitors",
    "Microtubule destabilizers", "Protein degradation",
)  # fmt: skip
VERSIONS = {"morphobench": "0.1.0", "torch": "2.14.0", "timm": "1.0.20", "pycytominer": "1.7.1"}


def wells(labels=LABELS, compounds_per_label=3, concentrations=(3, 3, 3), odd=1, replicates=2):
    """One row a well: with the defaults 18 compounds and 55 treatments."""
    rows, n = [], 0
    for i, label in enumerate(labels):
        for j in range(compounds_per_label):
            count = concentrations[j % len(concentrations)] + (odd if (i, j) == (0, 0) else 0)
            for k in range(count):
                for r in range(replicates):
                    n += 1
                    rows.append({
                        "Metadata_Batch": f"week{1 + r}", "Metadata_Plate": f"plate{i}{r}",
                        "Metadata_Well": f"{'ABCDEFGH'[n % 8]}{n:03d}", "Metadata_Replicate": r + 1,
                        "Metadata_Compound": f"{label.split()[0].lower()}-{'abc'[j]}",
                        "Metadata_Concentration": [0.1, 0.3, 1.0, 3.0, 10.0][k],
                        "Metadata_Label": label, "Metadata_Control": "", "Metadata_CellLine": "",
                        "fold": i * compounds_per_label + j,
                    })  # fmt: skip
    return pd.DataFrame(rows)


def predictions(layout, method, wrong, unit="well", seed=0, per_well=1, noise=0.02):
    """Predictions whose wrong treatments are exactly ``wrong`` (positions among the sorted treatments)."""
    rng = np.random.default_rng(abs(hash_of(method)) + seed)
    labels = sorted(layout["Metadata_Label"].unique())
    key = ["Metadata_Compound", "Metadata_Concentration"]
    order = layout[key].drop_duplicates().sort_values(key).reset_index(drop=True)
    position = {tuple(row): i for i, row in enumerate(order.itertuples(index=False))}
    rows = []
    for row in layout.to_dict("records"):
        true = labels.index(row["Metadata_Label"])
        bad = position[row[key[0]], row[key[1]]] in set(wrong)
        for site in range(per_well):
            peak = (true + 1) % len(labels) if bad else true
            p = np.full(len(labels), 0.2 / (len(labels) - 1)) + rng.uniform(0, noise, len(labels))
            p[peak] += 0.6
            p /= p.sum()
            extra = {"Metadata_Site": site + 1} if unit in ("field", "crop") else {}
            extra |= {"crop": 0} if unit == "crop" else {}
            rows.append(row | extra | {"unit": unit, "method": method, "seed": seed}
                        | {f"p_{label}": value for label, value in zip(labels, p, strict=True)})
    return pd.DataFrame(rows)


def hash_of(text):
    return int.from_bytes(text.encode()[:6], "big") % 2**32


def run(layout, name, wrong, title="", unit="well", seeds=(0,), per_well=2, control=False, **record):
    tables = [predictions(layout, name, wrong, unit, s, per_well if unit != "well" else 1) for s in seeds]
    base = {
        "assay_hash": "0123456789abcdef", "split_hash": "fedcba9876543210", "seconds": 123.4,
        "device": "cpu (2 cores)", "versions": VERSIONS, "control": control, "transductive": [],
    }  # fmt: skip
    return Run(name, title, base | record, pd.concat(tables, ignore_index=True))


def study_runs(cnn=(5,), classical=(5, 11, 30, 40), control_right=9, count_right=14, layout=None):
    """The seven runs of a study; each argument lists (or counts) wrong or right treatments."""
    layout = wells() if layout is None else layout
    n = len(layout[["Metadata_Compound", "Metadata_Concentration"]].drop_duplicates())
    spread = np.random.default_rng(1).permutation(n).tolist()
    return [
        run(layout, "cell_count", spread[count_right:], "Cell count alone", role="count"),
        run(layout, "cellprofiler", classical, "CellProfiler profiles", role="classical",
            choices={"logistic_regression C=0.1": 11, "random_forest": 7}, transductive=["normalised per plate"],
            cellprofiler={"version": "4.2.8", "origin": "own environment"}),
        run(layout, "cellprofiler_fields", (*classical, 17), "CellProfiler, field profiles", unit="field",
            role="classical"),
        run(layout, "cnn_frozen", (*cnn, 20, 33), "EfficientNet-Lite0, frozen features", unit="field",
            role="frozen"),
        run(layout, "cnn_finetuned", cnn, "EfficientNet-Lite0, fine-tuned", unit="crop", role="finetuned",
            settings={"epochs": 8, "size": 224}),
        run(layout, "permuted:cellprofiler", spread[control_right:], "Labels permuted: CellProfiler", control=True),
        run(layout, "permuted:cnn", spread[::-1][control_right - 2 :], "Labels permuted: CNN", unit="field",
            control=True),
    ]  # fmt: skip


def study(**changes):
    return {
        "name": "fake", "title": "A fake study", "description": "Made up for tests.", "simulated": False,
        "source": "Images of nothing.", "scheme": "leave one compound out", "n_folds": 18, "n_fields": 220,
        "n_wells": 110, "n_treatments": 55, "n_compounds": 18, "labels": {label: 9 for label in LABELS},
        "data": {"notes": [["label 'Epithelial' left out: a single compound (PP-2)"]]},
        "assay_hash": "0123456789abcdef", "split_hash": "fedcba9876543210", "morphobench": "0.1.0",
        "costs": [{"what": "CellProfiler", "used_by": ["CellProfiler profiles"], "seconds": 812.3,
                   "detail": "2 processes, 220 fields"},
                  {"what": "CellProfiler profiles", "used_by": [], "seconds": 1900.0, "total": 2712.3,
                   "detail": "18 folds", "device": "cpu", "peak_mib": 512.0}],
    } | changes  # fmt: skip


#: (compound, cell line) and doses, µM, of the columns between the controls: the plate of BBBC013, and one like BBBC014.
TWO_COMPOUNDS = {
    ("Wortmannin", ""): [0.00098, 0.00195, 0.00391, 0.00781, 0.01563, 0.03125, 0.0625, 0.125, 0.25],
    ("LY294002", ""): [0.31, 0.63, 1.25, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0],
}
TWO_CELL_LINES = {("TNFa", line): [1e-4, 1e-3, 1e-2, 1e-1] for line in ("A549", "MCF7")}


def control_plate(curves=None, replicates=4, negatives=2):
    """One plate whose controls are scored: rows a replicate; negative and positive controls, and a dose series."""
    rows = []
    for number, ((compound, line), doses) in enumerate((curves or TWO_COMPOUNDS).items()):
        columns = [(0.0, "negative")] * negatives + [(d, "") for d in doses] + [(doses[-1], "positive")]
        for r in range(replicates):
            letter = "ABCDEFGHIJKLMNOP"[number * replicates + r]
            rows += [{
                "Metadata_Batch": "1", "Metadata_Plate": "P", "Metadata_Well": f"{letter}{i:02d}",
                "Metadata_Replicate": r + 1, "Metadata_Compound": compound, "Metadata_Concentration": dose,
                "Metadata_Label": {"negative": "cytoplasmic", "positive": "nuclear"}.get(control, ""),
                "Metadata_Control": control, "Metadata_CellLine": line, "fold": line or compound,
            } for i, (dose, control) in enumerate(columns, 1)]  # fmt: skip
    return pd.DataFrame(rows)


def dose_run(
    name, title="", ec50=0.2, slope=1.5, noise=0.4, sharp=4.0, seeds=(1,), plate=None, control=False, **record
):
    """A run on `control_plate` whose score rises along a Hill curve; ``ec50`` is relative to the highest dose."""
    plate = control_plate() if plate is None else plate
    parts = []
    for seed in seeds:
        rng = np.random.default_rng(hash_of(name) + seed)
        top = plate.groupby(["Metadata_Compound", "Metadata_CellLine"])["Metadata_Concentration"].transform("max")
        share = plate["Metadata_Concentration"] / top
        rise = share**slope / (share**slope + ec50**slope) if ec50 else np.full(len(plate), 0.5)
        p = 1 / (1 + np.exp(-(sharp * (2 * rise - 1) + rng.normal(0, noise, len(plate)))))
        parts.append(plate.assign(unit="well", method=name, seed=seed, p_cytoplasmic=1 - p, p_nuclear=p))
    table = pd.concat(parts, ignore_index=True)
    scored = table["Metadata_Label"] != ""
    base = {"assay_hash": "0123456789abcdef", "split_hash": "fedcba9876543210", "seconds": 12.3, "control": control,
            "device": "cpu (2 cores)", "versions": VERSIONS, "transductive": [], "data_lock": "10c" * 8}  # fmt: skip
    return Run(name, title, base | record, table[scored].reset_index(drop=True), table[~scored].reset_index(drop=True))


def dose_runs(plate=None):
    """Five runs on a plate whose controls are scored: good, steep, blind to dose and inverted ones."""
    return [
        dose_run("cell_count", "Cell count alone", ec50=0, noise=0.8, plate=plate, role="count"),
        dose_run("cellprofiler", "CellProfiler profiles", ec50=0.06, plate=plate, role="classical"),
        dose_run("cnn_frozen", "EfficientNet-Lite0, frozen features", ec50=0.1, slope=1, sharp=2, plate=plate,
                 role="frozen"),
        dose_run("cnn_finetuned", "EfficientNet-Lite0, fine-tuned", ec50=0.08, slope=3, sharp=9, plate=plate,
                 role="finetuned"),
        dose_run("permuted", "Labels permuted: CellProfiler", ec50=0.3, sharp=-0.7, noise=0.6, plate=plate,
                 control=True),
    ]  # fmt: skip
