"""Single cells, from a table in memory or a folder with one parquet file per plate, read in blocks of whole wells."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd

from benchmark.base.errors import MorphobenchError
from benchmark.base.tables import FIELD_KEY, PLATE, SITE, WELL, WELL_KEY, typed
from benchmark.cells.folder import BLOCK_ROWS, CELLS, GROUP, CellFolder, with_groups

#: ``function(plate, block) -> block``; see `SingleCells.mapped`.
BlockFunction = Callable[[str, pd.DataFrame], pd.DataFrame]


class _Store(Protocol):
    """Where cells are stored: their fields in the order of rows, and blocks of them by number."""

    @property
    def layout(self) -> pd.DataFrame:
        """`FIELD_KEY`, cells and group, plate by plate, well by well."""
        ...

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features."""
        ...

    @property
    def extras(self) -> tuple[str, ...]:
        """``Metadata_`` columns besides the key."""
        ...

    def load(self, plate: str, groups: Sequence[int], columns: list[str]) -> Iterator[pd.DataFrame]:
        """Columns (no keys) of some of a plate's blocks, in order."""
        ...


@dataclass(frozen=True)
class _Map:
    """A function over blocks, the features it gives, and whether each depends on itself alone."""

    function: BlockFunction
    features: tuple[str, ...]
    by_feature: bool

    def __call__(self, plate: str, block: pd.DataFrame, features: Sequence[str]) -> pd.DataFrame:
        result = self.function(plate, block)
        missing = [f for f in features if f not in result]
        if missing or not result.index.equals(block.index):
            what = f"lacks the features {missing[:3]}" if missing else "has other rows than it was given"
            raise MorphobenchError(f"the mapped block {what}", f"cells of plate {plate}",
                                   "The function must keep all rows in their order, and the features it declares.")
        kept = [c for c in block.columns if c.startswith("Metadata_")]
        return pd.concat([block[kept], result[list(features)]], axis=1)


@dataclass(frozen=True, eq=False)
class SingleCells:
    """The segmented cells of an assay; nothing is read before it is needed.

    Made by `of_frame` or `open`. Rows are ordered plate by plate, well by well, field by field;
    keys have the types of `benchmark.base.tables.typed`.
    """

    _store: _Store
    _kept: np.ndarray  # bool, one per row of the store's layout
    _maps: tuple[_Map, ...] = ()

    @classmethod
    def of_frame(cls, table: pd.DataFrame, block_rows: int = BLOCK_ROWS) -> SingleCells:
        """Cells of a table in memory: `FIELD_KEY` (without a site column, all are site 1) and float features.

        Features keep their dtype (in a folder they are float32). Cells of a field keep their order.
        """
        table = table if SITE in table else table.assign(**{SITE: 1})
        missing = [c for c in FIELD_KEY if c not in table]
        if missing:
            raise MorphobenchError(f"lacks the columns {', '.join(missing)}", "table of single cells")
        if table[FIELD_KEY].isna().any(axis=None):
            raise MorphobenchError("has rows without a plate, well or site", "table of single cells")
        table = typed(table).sort_values(FIELD_KEY, kind="stable", ignore_index=True)
        counts = table.groupby(FIELD_KEY, sort=True).size().rename(CELLS).reset_index()
        store = _Frame(table, with_groups(counts, block_rows))
        return cls(store, np.ones(len(store.layout), bool))

    @classmethod
    def open(cls, folder: Path) -> SingleCells:
        """Cells of a folder that `benchmark.cells.folder.write_folder` made.

        Raises
        ------
        MorphobenchError
            The folder is not complete, or of another version of this program.
        """
        store = CellFolder.open(folder)
        return cls(store, np.ones(len(store.layout), bool))

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features."""
        return self._maps[-1].features if self._maps else self._store.features

    @cached_property
    def counts(self) -> pd.DataFrame:
        """`FIELD_KEY` and ``cells`` (int64), one row per field that has cells, in the order of rows."""
        return self._store.layout.loc[self._kept, [*FIELD_KEY, CELLS]].reset_index(drop=True)

    @cached_property
    def plates(self) -> tuple[str, ...]:
        """Plates that have cells, in the order of rows."""
        return tuple(self.counts[PLATE].unique())

    def __len__(self) -> int:
        return int(self.counts[CELLS].sum())

    def blocks(self, plate: str, columns: Sequence[str] | None = None,
               wells: Collection[str] | None = None) -> Iterator[pd.DataFrame]:
        """Cells of a plate, several whole wells at a time.

        Parameters
        ----------
        plate : str
            A plate without cells gives no block.
        columns : sequence of str, optional
            Features, ``Metadata_ObjectNumber`` or centres to read; all features where none are named.
        wells : collection of str, optional
            Only these wells.

        Yields
        ------
        DataFrame
            `FIELD_KEY` and the columns in the order asked for (features float32), index 0…n-1; at most
            `BLOCK_ROWS` rows unless one well has more; never empty.

        Raises
        ------
        MorphobenchError
            There is no such column.
        """
        fields, kept = self._fields(plate)
        if wells is not None:
            kept = kept & fields[WELL].isin(list(wells)).to_numpy()
        return self._stream(plate, fields, np.repeat(kept, fields[CELLS]), self._checked(columns))

    def read(self, wells: Sequence[tuple[str, str]], columns: Sequence[str] | None = None) -> pd.DataFrame:
        """All cells of some (plate, well)s in one table, in the order of rows; wells without cells give none."""
        return self._gather(wells, columns, lambda plate, well, rows: rows)

    def sample(self, wells: Sequence[tuple[str, str]], n: int, seed: int,
               columns: Sequence[str] | None = None) -> pd.DataFrame:
        """About ``n`` cells of some (plate, well)s: the same share of each well, drawn without replacement.

        A well with cells gives at least one, so the result can slightly exceed ``n``. Which cells of a well are drawn
        depends on the seed, the well, its cells and their share, not on the order of ``wells``; a larger sample
        contains a smaller one.
        """
        wanted = set(wells)
        counts = self.counts.groupby(WELL_KEY)[CELLS].sum()
        total = int(counts[counts.index.isin(wanted)].sum())
        share = min(1.0, n / total) if total else 0.0

        def draw(plate: str, well: str, rows: np.ndarray) -> np.ndarray:
            name = hashlib.sha256(f"{plate}\0{well}".encode()).digest()[:8]
            rng = np.random.default_rng([seed, int.from_bytes(name, "big")])
            return rows[rng.permutation(len(rows))[: max(1, round(share * len(rows)))]]

        return self._gather(sorted(wanted), columns, draw)

    def without(self, fields: pd.DataFrame) -> SingleCells:
        """The same cells without those of some fields (`FIELD_KEY` columns)."""
        out = pd.MultiIndex.from_frame(fields[FIELD_KEY])
        mine = pd.MultiIndex.from_frame(self._store.layout[FIELD_KEY])
        return replace(self, _kept=self._kept & ~mine.isin(out))

    def mapped(self, function: BlockFunction, features: Sequence[str] | None = None,
               by_feature: bool = False) -> SingleCells:
        """The same cells with features changed by a function as blocks are read.

        Parameters
        ----------
        function : callable
            ``function(plate, block)`` gives a table with the block's rows (its index) and the new features. Blocks
            are arbitrary pieces, so each row must depend on the plate and itself alone.
        features : sequence of str, optional
            Names of the new features; the same as before where none are given.
        by_feature : bool
            Each new feature depends only on the old one of its name, so that reading some columns reads only those.
        """
        names = self.features if features is None else tuple(features)
        if by_feature and names != self.features:
            raise ValueError("by_feature keeps the names of features")
        return replace(self, _maps=(*self._maps, _Map(function, names, by_feature)))

    def _checked(self, columns: Sequence[str] | None) -> list[str]:
        if columns is None:
            return list(self.features)
        known = {*FIELD_KEY, *self._store.extras, *self.features}
        unknown = [c for c in columns if c not in known]
        if unknown:
            raise MorphobenchError(f"the single cells have no column {', '.join(map(repr, unknown[:3]))}",
                                   remedy=f"There are {', '.join(self.features[:3])}, …")
        return [c for c in dict.fromkeys(columns) if c not in FIELD_KEY]

    def _fields(self, plate: str) -> tuple[pd.DataFrame, np.ndarray]:
        """The plate's part of the layout, and which of its fields are kept."""
        here = (self._store.layout[PLATE] == plate).to_numpy()
        return self._store.layout[here], self._kept[here]

    def _gather(self, wells: Sequence[tuple[str, str]], columns: Sequence[str] | None,
                draw: Callable[[str, str, np.ndarray], np.ndarray]) -> pd.DataFrame:
        """Cells of wells that ``draw(plate, well, rows of the plate)`` leaves, in one table."""
        names = self._checked(columns)
        parts: list[pd.DataFrame] = []
        for plate in self.plates:
            mine = {w for p, w in wells if p == plate}
            if not mine:
                continue
            fields, kept = self._fields(plate)
            cells = fields[CELLS].to_numpy()
            chosen = np.zeros(cells.sum(), bool)
            starts = np.cumsum(cells) - cells
            for well, positions in fields[kept].groupby(WELL, sort=False).indices.items():
                if well in mine:
                    own = np.flatnonzero(kept)[positions]
                    rows = np.concatenate([np.arange(starts[i], starts[i] + cells[i]) for i in own])
                    chosen[draw(plate, str(well), rows)] = True
            parts += self._stream(plate, fields, chosen, names)
        if not parts:
            empty = pd.DataFrame(np.empty((0, len(names)), np.float32), columns=names)
            return pd.concat([self._store.layout.loc[[], FIELD_KEY].reset_index(drop=True), empty], axis=1)
        return pd.concat(parts, ignore_index=True)

    def _stream(self, plate: str, fields: pd.DataFrame, chosen: np.ndarray, columns: list[str]
                ) -> Iterator[pd.DataFrame]:
        """Chosen rows of a plate, block by block.

        ``chosen``: bool, one per row of the plate. Blocks without one are not read.
        """
        cells = fields[CELLS].to_numpy()
        groups, first = np.unique(fields[GROUP].to_numpy(), return_index=True)
        bounds = [*first.tolist(), len(fields)]
        starts = np.concatenate([[0], np.cumsum(cells)])[bounds]
        wanted = [i for i in range(len(groups)) if chosen[starts[i] : starts[i + 1]].any()]
        source, steps = self._plan(columns)
        extras = [c for c in columns if c in self._store.extras]
        loaded = self._store.load(plate, groups[wanted].tolist(), [*extras, *source])
        for i, block in zip(wanted, loaded, strict=True):
            where = np.repeat(np.arange(bounds[i], bounds[i + 1]), cells[bounds[i] : bounds[i + 1]])
            if len(block) != len(where):
                raise MorphobenchError(f"a block has {len(block)} cells, not {len(where)}", f"cells of plate {plate}",
                                       "The folder of single cells is damaged: delete it and run again.")
            rows = chosen[starts[i] : starts[i + 1]]
            if not rows.all():
                where, block = where[rows], block[rows].reset_index(drop=True)
            keys = fields[FIELD_KEY].take(where).reset_index(drop=True)
            block = pd.concat([keys, block], axis=1)
            for step, features in steps:
                block = step(plate, block, features)
            order = [*FIELD_KEY, *columns]
            yield block if list(block.columns) == order else block[order]

    def _plan(self, columns: list[str]) -> tuple[list[str], list[tuple[_Map, list[str]]]]:
        """Features to read for the columns, and what each map must give, so that nothing is read unnecessarily."""
        wanted = [c for c in columns if c not in self._store.extras]
        steps: list[tuple[_Map, list[str]]] = []
        for i in reversed(range(len(self._maps))):
            steps.insert(0, (self._maps[i], wanted))
            if not self._maps[i].by_feature:
                before = self._maps[i - 1].features if i else self._store.features
                wanted = list(before)
        return wanted, steps


class _Frame:
    """Cells of one sorted table in memory."""

    def __init__(self, table: pd.DataFrame, layout: pd.DataFrame) -> None:
        self.layout = layout
        self.features = tuple(c for c in table.columns if not c.startswith("Metadata_"))
        self.extras = tuple(c for c in table.columns if c.startswith("Metadata_") and c not in FIELD_KEY)
        self._table = table
        stops = layout.groupby([PLATE, GROUP], sort=False)[CELLS].sum().cumsum()
        self._spans = dict(zip(stops.index, zip(stops.shift(fill_value=0), stops, strict=True), strict=True))

    def load(self, plate: str, groups: Sequence[int], columns: list[str]) -> Iterator[pd.DataFrame]:
        """The cells of each group, in the order of ``groups``."""
        for group in groups:
            start, stop = self._spans[plate, group]
            yield self._table.iloc[start:stop][columns].reset_index(drop=True)
