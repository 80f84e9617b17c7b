"""What the kinds of assay whose tables are the user's own share of the ``assay:`` block."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from pydantic import Field, model_validator

from benchmark.base.settings import Settings

Key = Literal["batch", "plate", "well", "site", "replicate", "compound", "concentration", "label", "cell_line"]
Unlabelled = Literal["refuse", "keep", "leave_out"]
Doses = Literal["nominal", "as_written"]
REQUIRED: tuple[Key, ...] = ("plate", "well", "compound", "concentration", "label")


class ColumnRule(Settings):
    """Where a piece of metadata comes from: a column, part of a column, or one value for all rows."""

    column: str | None = Field(None, description="Column of the CSV.")
    pattern: str | None = Field(None, description="Regular expression with one group, searched in the column.")
    value: str | int | float | None = Field(None, description="One value for every row, instead of a column.")

    @model_validator(mode="after")
    def _one_source(self) -> ColumnRule:
        if (self.column is None) == (self.value is None):
            raise ValueError("give either `column` (with or without `pattern`) or `value`")
        if self.pattern is not None:
            if self.column is None:
                raise ValueError("`pattern` needs a `column` to look in")
            try:
                groups = re.compile(self.pattern).groups
            except re.error as error:
                raise ValueError(f"`pattern` is not a regular expression: {error}") from error
            if groups != 1:
                raise ValueError(f"`pattern` needs exactly one group in parentheses, and has {groups}")
        return self


class Mapped(Protocol):
    """Settings that say which column is what, and which compounds are controls."""

    @property
    def columns(self) -> Mapping[Any, str | ColumnRule]:
        """A column, or a rule, of each key."""
        ...

    @property
    def negative_controls(self) -> Sequence[str]:
        """Names of compounds that are untreated or DMSO."""
        ...

    @property
    def positive_controls(self) -> Sequence[str]:
        """Names of compounds with a known strong effect."""
        ...

    @property
    def unlabelled(self) -> Unlabelled:
        """What to do with rows without a label that are no control."""
        ...

    @property
    def doses(self) -> Doses:
        """Whether doses of a compound within a few percent are one."""
        ...
