"""Levels of a column: what operations on categories keep of the training rows."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic_core import core_schema

from treadle.engine.encoders.base import Fitted, Level
from treadle.engine.encoders.columns import NULL, UNSEEN, arrow, is_text, texts
from treadle.errors import DataError, listed

if TYPE_CHECKING:
    import pyarrow as pa

    from treadle.engine.document import Part
    from treadle.engine.encoders.columns import Column
    from treadle.engine.store import Store
    from treadle.kernels.texts import Known

INLINE = 1000
"""Most levels that are kept in a JSON document; more go to a Parquet file beside it."""
LEVEL, WORTH = "level", "worth_"
"""Columns of such a file."""


class Levels:
    """Distinct values of a column, in order, and what each is worth to an operation that gives them numbers.

    As JSON it is the list of the levels, an object with `levels` and `worth`, or the name of a `file`
    that has to be opened first. Immutable.
    """

    def __init__(self, values: Any = (), worth: NDArray[np.float64] | None = None, file: str | None = None) -> None:
        import pyarrow as pa

        self.values: pa.Array = values if isinstance(values, pa.Array) else pa.array(list(values))
        self.worth = worth
        """(numbers, levels + 2) float64: the last but one is for unseen values, the last for nulls."""
        self.file = file

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[Level]:
        return iter(self.values.to_pylist())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Levels):
            return NotImplemented
        if (self.worth is None) != (other.worth is None):
            return False
        same = self.worth is None or np.array_equal(self.worth, other.worth)  # type: ignore[arg-type]
        return same and self.file == other.file and self.values.to_pylist() == other.values.to_pylist()

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return Levels, (self.values, self.worth, self.file)

    def __repr__(self) -> str:
        return f"Levels({self.document()})"

    def document(self) -> Any:
        """As JSON."""
        if self.file is not None:
            return {"file": self.file}
        levels = self.values.to_pylist()
        return levels if self.worth is None else {"levels": levels, "worth": self.worth.tolist()}

    @classmethod
    def of(cls, value: Any) -> Levels:
        """From JSON."""
        if isinstance(value, Levels):
            return value
        if isinstance(value, (list, tuple)):
            return cls(value)
        if isinstance(value, dict) and value.keys() == {"levels", "worth"}:
            return cls(value["levels"], np.array(value["worth"], dtype=np.float64))
        if isinstance(value, dict) and value.keys() == {"file"}:
            return cls(file=value["file"])
        raise ValueError("levels are a list, or an object with levels and worth, or with the name of a file")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> core_schema.CoreSchema:
        serialization = core_schema.plain_serializer_function_ser_schema(cls.document)
        return core_schema.no_info_plain_validator_function(cls.of, serialization=serialization)

    def codes(self, column: Column) -> NDArray[np.int32]:
        """The position of every value; NULL for a null, UNSEEN for one that is no level."""
        import pyarrow.compute as pc

        from treadle.kernels.texts import find

        if self.file is not None:
            raise TypeError(f"{self.file} has to be opened first")
        values = arrow(column)
        if is_text(values):
            return find(self._known, texts(values))
        found = pc.index_in(values, value_set=self.values.cast(values.type))
        codes: NDArray[np.int32] = found.fill_null(UNSEEN).to_numpy()
        if values.null_count:
            codes = np.where(values.is_null().to_numpy(zero_copy_only=False), np.int32(NULL), codes)
        return codes

    @functools.cached_property
    def _known(self) -> Known:
        import pyarrow as pa

        from treadle.kernels.texts import known

        return known(texts(self.values if is_text(self.values) else self.values.cast(pa.string())))

    def called(self, text: str) -> int | None:
        """The position of the level that is written so."""
        if is_text(self.values):
            return (at if (at := self.values.index(text).as_py()) >= 0 else None) if len(self) else None
        return next((at for at, level in enumerate(self) if str(level) == text), None)

    def table(self) -> pa.Table:
        """As the rows of a file; what unseen values and nulls are worth stands in rows without a level."""
        import pyarrow as pa

        if self.worth is None:
            return pa.table({LEVEL: self.values})
        levels = pa.concat_arrays([self.values, pa.nulls(2, self.values.type)])
        return pa.table({LEVEL: levels, **{f"{WORTH}{i}": worth for i, worth in enumerate(self.worth)}})

    @classmethod
    def of_table(cls, table: pa.Table) -> Levels:
        """From the rows of a file."""
        levels = table.column(LEVEL).combine_chunks()
        worth = [table.column(i).to_numpy() for i in range(1, table.num_columns)]
        return cls(levels.slice(0, len(levels) - 2), np.array(worth)) if worth else cls(levels)


def unseen_error(name: str, column: Column, codes: NDArray[np.int32], known: Sequence[Level]) -> DataError:
    """What `unseen: error` says; some codes are UNSEEN."""
    import pyarrow as pa

    values = arrow(column).filter(pa.array(codes == UNSEEN))
    return DataError(
        f"Column '{name}' has values that the training rows did not have: "
        f"{listed(map(repr, values.unique().to_pylist()), 5)} ({len(values)} rows). Known: [{listed(known)}]. "
        "Set unseen: ignore or unseen: other in the feature operation to accept them."
    )


@dataclass(frozen=True)
class Shelf:
    """A folder of a store in which operations keep their many levels, beside the document that holds the rest."""

    store: Store
    folder: str

    def keep(self, operation: Fitted, number: int) -> Fitted:
        """Writes levels that are too many for a document; `number` is the operation's, by which files are called."""

        def keep(levels: Levels, name: str) -> Levels:
            if levels.file is not None or len(levels) <= INLINE:
                return levels
            self.store.write_parquet(f"{self.folder}/{name}", levels.table())
            return Levels(file=name)

        return _mapped(operation, f"levels-{number}", keep)

    def opened(self, operations: Sequence[Fitted]) -> list[Fitted]:
        """The operations with all levels in memory; a file is read once a process."""

        def open_(levels: Levels, name: str) -> Levels:
            if levels.file is None:
                return levels
            path = f"{self.folder}/{levels.file}"
            return _load(self.store, path, self.store.stamp(path))

        return [_mapped(operation, "", open_) for operation in operations]

    def parts(self, operations: Sequence[Fitted]) -> tuple[Part, ...]:
        """The files that the operations name."""
        from treadle.engine.document import Part

        found = [levels.file for operation in operations for _, levels in _all_levels(operation)]
        paths = [f"{self.folder}/{file}" for file in found if file is not None]
        return tuple(Part(path=path, rows=0, bytes=self.store.fs.size(self.store.path(path))) for path in paths)


def _all_levels(operation: Fitted) -> Iterator[tuple[str, Levels]]:
    """The levels of all columns, with the field that holds them."""
    for field in type(operation).model_fields:
        found = getattr(operation, field)
        if isinstance(found, dict):
            yield from ((field, levels) for levels in found.values() if isinstance(levels, Levels))


def _mapped(operation: Fitted, prefix: str, change: Callable[[Levels, str], Levels]) -> Fitted:
    """The operation with its levels changed by `change(levels, file name)`; itself when none is."""
    update: dict[str, Any] = {}
    for field in dict.fromkeys(field for field, _ in _all_levels(operation)):
        found = getattr(operation, field)
        made = {n: change(levels, f"{prefix}-{field}-{i}.parquet") for i, (n, levels) in enumerate(found.items())}
        if any(made[name] is not found[name] for name in found):
            update[field] = made
    return operation.model_copy(update=update) if update else operation


@functools.lru_cache(maxsize=64)
def _load(store: Store, path: str, stamp: str) -> Levels:
    return Levels.of_table(store.read_parquet(path))
