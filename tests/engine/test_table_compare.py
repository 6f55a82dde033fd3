"""Two tables held against each other, beside a loop over Python's values; batches and their borders change nothing."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.engine.table_compare import compare

NAN_2 = struct.unpack("<d", struct.pack("<Q", 0x7FF8000000000001))[0]
"""A NaN with another payload."""
NUMBERS = st.none() | st.sampled_from([0.0, -0.0, 1.0, 1.0 + 1e-9, 1e9, 1e9 + 1, math.nan, NAN_2, math.inf, -math.inf])
ROW = st.fixed_dictionaries(
    {
        "f": NUMBERS,
        "g": NUMBERS,
        "t": st.sampled_from(["a", "b", None]),
        "n": st.sampled_from([1, 2**62, 2**62 + 1, None]),
    }
)
SCHEMA = pa.schema([("f", pa.float64()), ("g", pa.float32()), ("t", pa.string()), ("n", pa.int64())])


def batches(rows: list[dict[str, Any]], size: int, schema: pa.Schema = SCHEMA) -> Iterator[pa.RecordBatch]:
    yield pa.RecordBatch.from_pylist([], schema)
    yield from (pa.RecordBatch.from_pylist(rows[i : i + size], schema) for i in range(0, len(rows), size))


def stored(value: float | None, column: str) -> float | None:
    """A number as the column holds it."""
    if value is None or column == "f" or math.isnan(value):
        return value
    return struct.unpack("<f", struct.pack("<f", value))[0]  # type: ignore[no-any-return]


def apart(a: Any, b: Any) -> float:
    """How far apart two values are, 0 when they are the same, infinite where there is no small difference."""
    if not isinstance(a, float) or not isinstance(b, float):
        return 0.0 if a == b and (a is None) == (b is None) else math.inf
    if math.isnan(a) or math.isnan(b):
        return 0.0 if math.isnan(a) and math.isnan(b) else math.inf
    if a == b:
        return 0.0
    return abs(a - b) / max(1.0, abs(a)) if math.isfinite(a) and math.isfinite(b) else math.inf


@given(st.data(), st.sampled_from([0.0, 1e-8, 1e-3]), st.integers(1, 5), st.integers(1, 5))
def test_outcomes_are_those_of_a_loop(data: st.DataObject, tolerance: float, first: int, second: int) -> None:
    then = data.draw(st.lists(ROW, max_size=12))
    # Mostly the same rows, or every example would differ everywhere.
    now = [{**row, **data.draw(st.just({}) | st.fixed_dictionaries({}, optional={"f": NUMBERS, "t": st.just("b")}))}
           for row in then]  # fmt: skip
    now += data.draw(st.just([]) | st.lists(ROW, max_size=2))
    found = compare(batches(then, first), batches(now, second), tolerance)
    assert found.rows == (len(then), len(now))
    counts: dict[str, int] = {}
    places: list[tuple[int, str]] = []
    same_bits, largest = True, 0.0
    for place, (old, new) in enumerate(zip(then, now, strict=False)):
        for name in SCHEMA.names:
            a, b = (stored(one[name], name) if name in "fg" else one[name] for one in (old, new))
            distance = apart(a, b)
            is_number = isinstance(a, float) or isinstance(b, float)
            largest = max(largest, distance) if name in "fg" and is_number else largest
            same_bits &= distance == 0.0 and (
                not is_number or math.isnan(a) or math.copysign(1, a) == math.copysign(1, b)
            )
            if distance > tolerance:
                counts[name] = counts.get(name, 0) + 1
                places.append((place, name))
    assert found.counts == counts
    assert found.largest == pytest.approx(largest)
    if places:
        assert found.first is not None
        assert found.first.row == places[0][0]
        assert (found.first.row, found.first.column) in places
    expected = "different" if counts or len(then) != len(now) else "bit-equal" if same_bits else "equal"
    assert found.outcome == expected


def test_other_columns_are_told_and_those_left_out_are_not_looked_at() -> None:
    then = pa.table({"a": [1], "b": ["x"], "c": [1.0], "seconds": [3.0]})
    now = pa.table({"a": [1.5], "c": [1.0], "d": [2], "seconds": [4.0]})
    found = compare(iter(then.to_batches()), iter(now.to_batches()), 1e-6, ("seconds",))
    assert found.schema == ("column 'a' is double, and was int64", "column 'b' is missing", "column 'd' is new")
    assert found.outcome == "different"
    assert found.counts == {}
    assert found.left_out == ("seconds",)
    only = compare(iter(then.select(["seconds"]).to_batches()), iter(now.select(["seconds"]).to_batches()), 0.0)
    assert (only.outcome, only.largest, only.column) == ("different", pytest.approx(1 / 3), "seconds")
