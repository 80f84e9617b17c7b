"""How numbers are written, and the answer in plain words."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from benchmark.evaluation.comparison import Comparison
from benchmark.evaluation.metrics import FEWEST_CLUSTERS

#: Two methods differ where McNemar's exact p is below this.
ALPHA = 0.05
#: A baseline within this share of the best method "does nearly as well".
NEARLY = 0.05
#: What may distinguish the labels where a baseline does nearly as well as anything.
_TELLS = {"count": "toxicity or seeding", "intensity": "staining or exposure", "position": "the layout of its plates",
          "batch": "the batch"}


@dataclass(frozen=True)
class Answer:
    """The headline: sentences to read first, and warnings to read before them."""

    sentences: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def text(self) -> str:
        """The sentences as one paragraph."""
        return " ".join(self.sentences)


def percent(share: float) -> str:
    """``0.909`` → ``90.9 %`` (no-break space)."""
    return f"{100 * share:.1f}\u00a0%"


def interval(low: float, high: float) -> str:
    """``80.4–96.1`` in percent, ``−12.0 to 3.5`` where a bound is negative, or a dash where there is none."""
    if math.isnan(low) or math.isnan(high):
        return "–"
    if low < 0:
        return f"{points(low)} to {points(high)}"
    return f"{100 * low:.1f}–{100 * high:.1f}"


def points(difference: float) -> str:
    """A difference in percentage points with a true minus sign: ``−5.5``."""
    text = f"{100 * difference:.1f}"
    return "0.0" if text == "-0.0" else text.replace("-", "−")


def p_value(p: float) -> str:
    """``0.25``, ``0.041``, ``< 0.001``: three decimals where two would hide on which side of 0.05 it lies."""
    if p < 0.001:
        return "<\u00a00.001"
    return f"{p:.2f}" if p >= 0.0995 else f"{p:.3f}"


def p_equals(p: float) -> str:
    """``p = 0.25`` or ``p < 0.001``, never broken over lines."""
    return f"p\u00a0{p_value(p)}" if p < 0.001 else f"p\u00a0=\u00a0{p_value(p)}"


def share_of(row: pd.Series) -> str:
    """``54 of 55 treatments (98.2 %, 95 % interval 90.4–99.7 %)``."""
    return (
        f"{row['correct']} of {row['n']} {row['unit']}s ({percent(row['accuracy'])}, 95\u00a0% interval "
        f"{interval(row['low'], row['high'])}\u00a0%)"
    )


def listing(names: list[str]) -> str:
    """``A``, ``A and B``, ``A, B and C``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def turned(pair: pd.Series, first: str, bounds: tuple[str, str]) -> tuple[int, float, float]:
    """A pair of methods seen from one of them: 1 or -1 on its difference, and the difference's bounds."""
    sign = 1 if pair["method_a"] == first else -1
    low, high = sorted(sign * pair[bound] + 0.0 for bound in bounds)  # no minus before a zero
    return sign, low, high


def _row(comparison: Comparison, method: str) -> pd.Series:
    row = comparison.score(method)
    assert row is not None  # every method reaches the unit that is compared
    return row


def _best(comparison: Comparison, methods: list[str]) -> list[str]:
    """The methods with the most units right; several where they tie, but no ensemble beside its own method."""
    correct = {m: int(_row(comparison, m)["correct"]) for m in methods}
    best = [m for m in methods if correct[m] == max(correct.values())]
    return [m for m in best if comparison.ensembles.get(m) not in best]


def _headline(comparison: Comparison, methods: list[str]) -> str:
    best = _best(comparison, methods)
    row = _row(comparison, best[0])
    names = listing([comparison.titles[m] for m in best])
    verb = "had" if len(best) == 1 else "each had"
    text = f"{names} {verb} the most {comparison.unit}s right: {share_of(row)}; "
    text += f"always guessing the most common label would have {percent(row['chance'])}."
    if row["low"] <= row["chance"]:
        text += " That is not clearly better than chance."
    return text


def _duel(comparison: Comparison) -> str:
    """The question of the suite: the fine-tuned network against the profiles of CellProfiler (or cp_measure)."""
    program = comparison.program
    first = {
        role: next((m for m in comparison.methods if comparison.roles[m] == role), None)
        for role in ("finetuned", "classical")
    }
    cnn, classical = first["finetuned"], first["classical"]
    if cnn is None or classical is None:
        missing = "fine-tuned CNN" if cnn is None else f"{program} method"
        return f"Whether a fine-tuned CNN does better than {program} is not answered: no {missing} has run."
    pair = comparison.pair(cnn, classical)
    assert pair is not None
    beside = _over_seeds(comparison, cnn, classical)
    mine, theirs = ("a", "b") if pair["method_a"] == cnn else ("b", "a")
    right, other = int(pair[f"correct_{mine}"]), int(pair[f"correct_{theirs}"])
    only, only_other = (pair["b"], pair["c"]) if mine == "a" else (pair["c"], pair["b"])
    test = f"exact McNemar test, {p_equals(pair['p'])}"
    unit = f"{comparison.unit}s"
    detail = f"{only} {unit} right for the CNN alone, {only_other} for {program} alone"
    names = f"the fine-tuned CNN ({comparison.titles[cnn]}) and {program} ({comparison.titles[classical]})"
    if pair["p"] >= ALPHA:
        return (
            f"Between {names} there is no evidence of a difference: {right} against {other} of {pair['n']} "
            f"{unit} ({test}; {detail}). That is not evidence that they are equal.{beside}"
        )
    verdict = "better" if right > other else "worse"
    text = (
        f"The fine-tuned CNN ({comparison.titles[cnn]}) did {verdict} than {program} "
        f"({comparison.titles[classical]}): {right} against {other} of {pair['n']} {unit} ({test}; {detail})."
    )
    if pair["p_holm"] >= ALPHA or pair["p_compounds"] >= ALPHA or pair["cluster_low"] <= 0 <= pair["cluster_high"]:
        text += (
            f" The evidence is weak: corrected for all {len(comparison.pairs)} comparisons "
            f"{p_equals(pair['p_holm'])}, and counting each compound once {p_equals(pair['p_compounds'])}."
        )
    return text + beside


def seed_range(comparison: Comparison, method: str) -> str:
    """``50 to 53``, or ``51`` where each seed has as many right."""
    spread = comparison.spread.of(method, comparison.unit)
    if spread is None:
        return str(_row(comparison, method)["correct"])
    low, high = spread["correct_low"], spread["correct_high"]
    return str(low) if low == high else f"{low} to {high}"


def _over_seeds(comparison: Comparison, a: str, b: str) -> str:
    """Whether two methods differ by more than their seeds do; nothing where they have one."""
    pair = comparison.spread.pair(a, b)
    if pair is None:
        return ""
    turn, low, high = turned(pair, a, ("low", "high"))
    verdict = "is larger than" if pair["apart"] else "is no larger than"
    return (
        f" The difference {verdict} the spread over seeds: with {pair['seeds']} seeds {comparison.titles[a]} had "
        f"{seed_range(comparison, a)} of {pair['n']} right and {comparison.titles[b]} {seed_range(comparison, b)} "
        f"(difference at the same seed on average {points(turn * pair['mean'])} points, {points(low)} to "
        f"{points(high)})."
    )


def _seeds(comparison: Comparison, methods: list[str]) -> list[str]:
    """What the other seeds say: of the lead of the best method, and of ensembles; nothing where there is one seed."""
    if comparison.accuracy["seed"].nunique() < 2:
        return []
    first = "The numbers above are those of each method's lowest seed."
    said = [first]
    best = _best(comparison, [m for m in methods if m not in comparison.ensembles] or methods)[0]
    pairs = {m: pair for m in methods if m != best and (pair := comparison.spread.pair(best, m)) is not None}
    near = [comparison.titles[m] for m, pair in pairs.items() if not pair["apart"]]
    if pairs:
        spread = comparison.spread.of(best, comparison.unit)
        assert spread is not None
        lead = f"over {listing(near)} is no larger" if near else "over every other method is larger"
        said = [f"{first} With {spread['seeds']} seeds {comparison.titles[best]} had {seed_range(comparison, best)} of "
                f"{spread['n']} right; its lead {lead} than the spread over seeds."]
    for name, method in comparison.ensembles.items():
        pair = comparison.pair(name, method)
        row = _row(comparison, name)
        assert pair is not None
        said.append(f"{comparison.titles[name]}: {row['correct']} of {row['n']} right, single seeds "
                    f"{seed_range(comparison, method)} (exact McNemar test against seed {pair['seed']}, "
                    f"{p_equals(pair['p'])}).")
    return said


def _fusions(comparison: Comparison, methods: list[str]) -> list[str]:
    """Each fusion against each of its parts, by the same paired test."""
    sentences = []
    for fusion in methods:
        against = [t for part in comparison.fusions.get(fusion, ()) if (t := _against(comparison, fusion, part))]
        if against:
            sentences.append(f"{comparison.titles[fusion]}, against its parts: {'; '.join(against)}.")
    return sentences


def _against(comparison: Comparison, fusion: str, part: str) -> str:
    """``52 against 49 of 55 treatments of CellProfiler (difference …, p = …): no evidence of a difference``."""
    pair = comparison.pair(fusion, part)
    if pair is None:  # the part is not in this comparison
        return ""
    sign, low, high = turned(pair, fusion, ("cluster_low", "cluster_high"))
    mine, other = ("a", "b") if sign > 0 else ("b", "a")
    difference = sign * pair["difference"]
    said = f"{points(difference)} percentage points"
    if not math.isnan(low):
        said += f", 95\u00a0% interval over compounds {points(low)} to {points(high)}"
    verdict = "no evidence of a difference"
    if pair["p"] < ALPHA:
        verdict = f"{'better' if difference > 0 else 'worse'} than it"
        if pair["p_holm"] >= ALPHA or pair["p_compounds"] >= ALPHA or low <= 0 <= high:
            verdict += f", on weak evidence (corrected for all comparisons {p_equals(pair['p_holm'])})"
    return (f"{pair[f'correct_{mine}']} against {pair[f'correct_{other}']} of {pair['n']} {comparison.unit}s right by "
            f"{comparison.titles[part]} ({said}; exact McNemar test, {p_equals(pair['p'])}): {verdict}")


def _controls(comparison: Comparison) -> tuple[list[str], list[str]]:
    """What the permuted-label runs say: a sentence, or a warning where one is above chance."""
    controls = [m for m in comparison.methods if m in comparison.controls]
    if not controls:
        return ["No permuted-label run was made, so a leak would go unnoticed."], []
    leaks = []
    for method in controls:
        row = _row(comparison, method)
        # Both intervals: treatments of a compound succeed together, so Wilson's alone gives false alarms. Where wells
        # are compared, labels were permuted well by well, so they are independent of one another by design.
        if row["low"] > row["chance"] and (comparison.unit == "well" or row["cluster_low"] > row["chance"]):
            leaks.append(f"{comparison.titles[method]} had {share_of(row)} right")
    if leaks:
        chance = percent(_row(comparison, controls[0])["chance"])
        return [], [
            f"Possible leak: trained on permuted labels, {listing(leaks)}, clearly above chance ({chance}). "
            "Information about the test compounds reaches training, or labels follow plates or batches. Do not "
            "trust the accuracies on this page until this is explained."
        ]
    worst = max((_row(comparison, m) for m in controls), key=lambda r: r["accuracy"])
    best = _row(comparison, _best(comparison, [m for m in comparison.methods if m not in controls])[0])
    text = (
        f"Permuted-label runs had at most {worst['correct']} of {worst['n']} right "
        f"({percent(worst['accuracy'])}"
    )
    if math.isnan(worst["cluster_low"]) and comparison.unit != "well":
        return [
            f"{text}; chance {percent(worst['chance'])}). With fewer than {FEWEST_CLUSTERS} compounds that "
            "can lie far on either side of chance by luck, so it neither shows nor rules out a leak."
        ], []
    beats = "clearly below" if best["low"] > worst["high"] else "NOT clearly below"
    return [
        f"{text}), not clearly above chance ({percent(worst['chance'])}) and {beats} the "
        "best method."
    ], []


def _baselines(comparison: Comparison, methods: list[str]) -> tuple[list[str], list[str]]:
    """Whether anything is gained over the best of what any claim must beat: cell count, intensity, position, batch."""
    plain = [m for m in methods if comparison.roles[m] in ("count", "baseline")]
    others = [m for m in methods if m not in plain]
    if not plain or not others:
        return [], []
    base, best = _best(comparison, plain)[0], _best(comparison, others)[0]
    row, top = _row(comparison, base), _row(comparison, best)
    among = f", the best of {len(plain)} baselines," if len(plain) > 1 else ""
    text = f"{comparison.titles[base]}{among} had {row['correct']} of {row['n']} right ({percent(row['accuracy'])})."
    pair = comparison.pair(base, best)
    if row["accuracy"] >= top["accuracy"] - NEARLY:
        return [text], [
            f"{comparison.titles[base]} does nearly as well ({row['correct']} of {row['n']}) as the best method "
            f"({comparison.titles[best]}, {top['correct']} of {top['n']}): this assay may distinguish labels by "
            f"{_TELLS.get(comparison.baselines.get(base, 'count'), 'that alone')}, not by morphology."
        ]
    if pair is not None and pair["p"] >= ALPHA:
        return [text], [
            f"There is no evidence that the best method ({comparison.titles[best]}) does better than "
            f"{comparison.titles[base]} (exact McNemar test, {p_equals(pair['p'])})."
        ]
    return [text], []


def _confounding(comparison: Comparison) -> tuple[list[str], list[str]]:
    """What the layout gives away: a warning where position on the plate or the batch alone predicts labels."""
    tellers: list[str] = []
    silent: list[str] = []
    for method, feature in comparison.baselines.items():
        if feature not in ("position", "batch"):
            continue
        row = _row(comparison, method)
        # As for permuted labels: wells of one compound lie near each other, so both intervals must say so.
        clear = row["low"] > row["chance"] and not row["cluster_low"] <= row["chance"]
        (tellers if clear else silent).append(f"{comparison.titles[method]} had {share_of(row)} right")
    sentences = [f"{listing(silent)}: not clearly above chance, as it should be."] if silent else []
    if not tellers:
        return sentences, []
    return sentences, [
        f"This assay is confounded: {listing(tellers)}, without seeing any image. Labels follow the layout of "
        "plates or batches, and every accuracy on this page may owe something to it. Randomise the layout, or compare "
        "under leave-one-compound-and-batch-out."
    ]


def answer(comparison: Comparison, simulated: bool = False) -> Answer:
    """The study's answer in plain words, every number taken from the comparison.

    Parameters
    ----------
    comparison : Comparison
    simulated : bool
        Adds that the numbers say nothing about real cells.
    """
    methods = [m for m in comparison.methods if m not in comparison.controls]
    if not methods:
        return Answer(("Only permuted-label runs have been made: there is nothing to compare yet.",), ())
    control_text, leaks = _controls(comparison)
    base_text, base_warnings = _baselines(comparison, methods)
    layout_text, layout_warnings = _confounding(comparison)
    sentences = [_headline(comparison, methods), _duel(comparison), *_fusions(comparison, methods), *control_text,
                 *base_text, *layout_text]
    if comparison.unit == "well":
        sentences.append(
            f"Only control wells are scored, of {len(comparison.folds)} held-out groups, each judged by one fitted "
            "model: a thin basis, whatever the numbers."
        )
    sentences += _seeds(comparison, methods)
    if simulated:
        sentences.append("The images are simulated, so this says nothing about real cells.")
    return Answer(tuple(sentences), (*leaks, *layout_warnings, *base_warnings))
