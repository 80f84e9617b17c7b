"""How many fields go, why, and what goes with them: counts for `benchmark.base.account.Loss`."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pandas as pd

from benchmark.assays.places import several
from benchmark.base.account import Loss, Things
from benchmark.base.errors import Fault
from benchmark.base.tables import COMPOUND, PLATE, WELL_KEY


def cause_of(faults: tuple[Fault, ...]) -> str:
    """What is wrong with the images of a field, without names of files and what is particular to one of them."""
    kinds = dict.fromkeys(re.split(r":| \(", f.what, maxsplit=1)[0].strip() for f in faults)
    return "an image " + ", and ".join(kinds)


def field_losses(before: pd.DataFrame, causes: Mapping[int, str], asked: bool = False, remedy: str = "") -> list[Loss]:
    """Fields that go, a loss a cause, the most frequent first.

    Parameters
    ----------
    before : DataFrame
        The field table with them.
    causes : mapping
        Position in it → the cause, in the same words for fields that go for the same cause.
    asked : bool
        Whether a setting of the study leaves them out.
    """
    why = pd.Series(dict(causes), dtype=object)
    losses = []
    for cause, count in why.value_counts(sort=True).items():
        plates = sorted({str(p) for p in before.iloc[why.index[why == cause]][PLATE]})
        on = f" (plate{'s' if len(plates) > 1 else ''} {several(plates, ', ')})"
        losses.append(Loss("fields", int(count), len(before), f"{cause}{on}", asked=asked, remedy=remedy))
    return losses


def gone_with_fields(before: pd.DataFrame, after: pd.DataFrame, asked: bool = False) -> list[Loss]:
    """Wells, compounds and plates that are left without a field; a whole plate is worth a warning in any assay."""
    losses = []
    kinds: tuple[tuple[Things, list[str]], ...] = (("wells", WELL_KEY), ("compounds", [COMPOUND]))
    for things, key in kinds:
        total, left = (len(table.drop_duplicates(key)) for table in (before, after))
        if left < total:
            losses.append(Loss(things, total - left, total, "no field of them is left", asked=asked))
    counts = before[PLATE].astype(str).value_counts(sort=False)
    return losses + [Loss("fields", int(n), int(n), "no field of the plate is left", f"plate {plate}", asked)
                     for plate, n in counts.items() if plate not in set(after[PLATE].astype(str))]
