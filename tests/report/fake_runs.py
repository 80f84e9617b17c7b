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
                        "Metadata_Label": label, "Metadata_Control": "", "fold": i * compounds_per_label + j,
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
        run(layout, "cellprofiler_fields", (*classical, 17), "CellProfiler, field profiles", unit="field"),
        run(layout, "cnn_frozen", (*cnn, 20, 33), "EfficientNet-Lite0, frozen features", unit="field"),
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
        "left_out": ["label 'Epithelial' left out: a single compound (PP-2)"],
        "assay_hash": "0123456789abcdef", "split_hash": "fedcba9876543210", "morphobench": "0.1.0",
        "stages": [{"stage": "CellProfiler", "seconds": 812.3, "detail": "2 processes, 220 fields"},
                   {"stage": "fine-tuning", "seconds": 1900.0, "detail": "18 folds"}],
    } | changes  # fmt: skip
