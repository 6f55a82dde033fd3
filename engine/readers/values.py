"""Text values as typed values, and the type that fits all values of a column."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from treadle.engine.readers.options import TextOptions

TRUE, FALSE = ("true",), ("false",)
MORE_TRUE, MORE_FALSE = ("true", "yes", "t", "y", "1"), ("false", "no", "f", "n", "0")
"""Accepted besides in columns whose type is given."""
INTEGER = r"^[+-]?[0-9]+$"
NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$|^[+-]?(?i:inf|infinity|nan)$"
ISO_8601 = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"([ T][0-9]{2}(:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?)?(Z|[+-][0-9]{2}(:?[0-9]{2})?)?)?$"
)
SHORTEST_OVERFLOW = 19
"""Digits of 2**63."""
FEW = 100
"""Values that are tried before a whole column is."""


def convert(values: pa.StringArray, kind: str, options: TextOptions, *, given: bool = False) -> pa.Array:
    """The values as int64, float64, bool, timestamp[us] or string; null where they are not of that kind.

    Times with an offset are given in UTC; fractions beyond microseconds are cut. `given` says that
    the user chose the type, which makes more words for true and false acceptable.
    """
    if kind == "bool":
        return _bools(values, given)
    if kind in ("int", "float") and options.thousands is not None:
        values = _unmarked(values, options.thousands, options.decimal)
    if kind == "int":
        return _ints(values)
    if kind == "float":
        return _floats(values, options.decimal)
    if kind == "timestamp":
        return _timestamps(values, options.date_formats)
    return values


def infer(values: pa.StringArray, options: TextOptions) -> str:
    """The narrowest of bool, int, float, timestamp and text that all values have; 'null' without any."""
    values = values.drop_null()
    if not len(values):
        return "null"
    for kind in ("bool", "int", "float", "timestamp"):
        if _all_are(kind, values.slice(0, FEW), options) and _all_are(kind, values, options):
            # Whole numbers of more than 64 bits are keys, which a float would garble.
            return "text" if kind == "float" and _has_long_integers(values, options) else kind
    return "text"


def unite(kinds: Iterable[str]) -> str:
    """The type of a column whose samples have these types."""
    found = set(kinds) - {"null"}
    if found == {"int", "float"}:
        return "float"
    return found.pop() if len(found) == 1 else "text"


def is_integer(values: pa.StringArray, options: TextOptions) -> pa.BooleanArray:
    """Which values are written as whole numbers, of any length."""
    if options.thousands is not None:
        values = _unmarked(values, options.thousands, options.decimal)
    return pc.match_substring_regex(pc.ascii_trim_whitespace(values), INTEGER)


def cleared(values: pa.StringArray, tokens: Sequence[str]) -> pa.StringArray:
    """The values with null in place of those that mean that nothing is there."""
    return _where(pc.invert(pc.is_in(values, pa.array(tokens, pa.string()))), values)


def _all_are(kind: str, values: pa.StringArray, options: TextOptions) -> bool:
    return convert(values, kind, options).null_count == 0


def _has_long_integers(values: pa.StringArray, options: TextOptions) -> bool:
    return pc.any(pc.and_(is_integer(values, options), pc.is_null(convert(values, "int", options)))).as_py()


def _unmarked(values: pa.StringArray, mark: str, decimal: str) -> pa.StringArray:
    """Numbers without the marks between their groups of three digits; 1,2 and 12,34 have none in place."""
    between, point = re.escape(mark), re.escape(decimal)
    grouped = rf"^\s*[+-]?[0-9]{{1,3}}({between}[0-9]{{3}})+({point}[0-9]*)?([eE][+-]?[0-9]+)?\s*$"
    return pc.if_else(
        pc.fill_null(pc.match_substring_regex(values, grouped), False),
        pc.replace_substring(pc.ascii_trim_whitespace(values), mark, ""),
        values,
    )


def _bools(values: pa.StringArray, given: bool) -> pa.BooleanArray:
    words = pc.utf8_lower(pc.ascii_trim_whitespace(values))
    true = pc.is_in(words, pa.array(MORE_TRUE if given else TRUE))
    false = pc.is_in(words, pa.array(MORE_FALSE if given else FALSE))
    return pc.if_else(pc.or_(true, false), true, pa.scalar(None, pa.bool_()))


def _ints(values: pa.StringArray) -> pa.Int64Array:
    # Arrow also reads 0x1F, which is a text here, so that the quick way is for digits only.
    if _holds_only(values, b"0123456789-"):
        with contextlib.suppress(pa.ArrowInvalid):
            return pc.cast(values, pa.int64())
    texts = pc.ascii_trim_whitespace(values)
    texts = pc.utf8_ltrim(_where(pc.match_substring_regex(texts, INTEGER), texts), "+")
    long = pc.greater_equal(pc.binary_length(texts), SHORTEST_OVERFLOW)
    if pc.any(long).as_py():
        fits = pa.array([text is not None and _fits_64_bits(text) for text in texts.to_pylist()])
        texts = _where(fits, texts)
    return pc.cast(texts, pa.int64())


def _fits_64_bits(text: str) -> bool:
    digits = text.lstrip("-").lstrip("0")
    return len(digits) < SHORTEST_OVERFLOW or (len(digits) == SHORTEST_OVERFLOW and -(2**63) <= int(text) < 2**63)


def _floats(values: pa.StringArray, decimal: str) -> pa.DoubleArray:
    if decimal != ".":
        values = pc.replace_substring(pc.replace_substring(values, ".", "\0"), decimal, ".")
    with contextlib.suppress(pa.ArrowInvalid):
        return pc.cast(values, pa.float64())
    texts = pc.ascii_trim_whitespace(values)
    return pc.cast(_where(pc.match_substring_regex(texts, NUMBER), texts), pa.float64())


def _timestamps(values: pa.StringArray, formats: Sequence[str]) -> pa.TimestampArray:
    if not formats:
        with contextlib.suppress(pa.ArrowInvalid):
            return pc.cast(values, pa.timestamp("us"))
    distinct = values.dictionary_encode()
    return _times_of(distinct.dictionary, formats).take(distinct.indices)


def _times_of(values: pa.StringArray, formats: Sequence[str]) -> pa.TimestampArray:
    texts = pc.ascii_trim_whitespace(values)
    times = pa.nulls(len(texts), pa.timestamp("us"))
    for format_ in formats:
        times = pc.coalesce(times, _parsed(texts, format_))
    iso = pc.replace_substring_regex(texts, r"(\.[0-9]{6})[0-9]+", r"\1")
    return pc.coalesce(times, _parsed(_where(pc.match_substring_regex(iso, ISO_8601), iso), "ISO8601"))


def _parsed(texts: pa.StringArray, format_: str) -> pa.TimestampArray:
    # Not Arrow's strptime: it takes 30/02 for 1 March.
    times = pd.to_datetime(texts.to_pandas(), format=format_, errors="coerce", utc=True)
    return pa.Array.from_pandas(times.dt.tz_localize(None), type=pa.timestamp("us"), safe=False)


def _where(mask: pa.BooleanArray, values: pa.Array) -> pa.Array:
    """The values where the mask is true, null elsewhere."""
    return pc.if_else(pc.fill_null(mask, False), values, pa.scalar(None, values.type))


def _holds_only(values: pa.StringArray, allowed: bytes) -> bool:
    table = np.zeros(256, np.bool_)
    table[list(allowed)] = True
    data = values.buffers()[2]
    return data is None or bool(table[np.frombuffer(data, np.uint8)].all())
