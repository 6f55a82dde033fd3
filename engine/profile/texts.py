"""What is known of a text column besides its values' counts: lengths, and what its texts could be cast to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from treadle.engine.encoders.columns import texts as bytes_of
from treadle.engine.sql.values import CONVERSIONS, Kind
from treadle.kernels.sketch import QuantileSketch, key_of_int64, merge_all, sketch_counts
from treadle.kernels.texts import hash_texts

if TYPE_CHECKING:
    from treadle.kernels.frequent import Frequent

SHOWN = 200
"""Characters of a text that are kept."""
LENGTHS = 2**12
"""Distinct lengths up to which their quantiles are exact."""

NUMBER = r"^\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*$"
SHORT_INTEGER = r"^\s*[+-]?[0-9]{1,18}\s*$"
ISO = r"^\s*[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([ T]|\s*$)"
DATE_FORMATS = (
    "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d",
    "%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M", "%d.%m.%Y %H:%M", "%Y/%m/%d %H:%M",
    "%d/%m/%Y %H:%M:%S", "%m/%d/%Y %H:%M:%S", "%d.%m.%Y %H:%M:%S", "%Y/%m/%d %H:%M:%S",
    "%d %b %Y", "%d-%b-%Y", "%b %d, %Y", "%d %B %Y", "%B %d, %Y",
)  # fmt: skip
"""Formats of dates that are tried, besides ISO 8601; of two that fit, the first is meant unless that is ambiguous."""
_PATTERNS = {
    "%d": "[0-9]{1,2}", "%m": "[0-9]{1,2}", "%Y": "[0-9]{4}", "%H": "[0-9]{1,2}", "%M": "[0-9]{1,2}",
    "%S": "[0-9]{1,2}", "%b": "[A-Za-z]{3}", "%B": "[A-Za-z]{3,9}", ".": r"\.",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Texts:
    """`words`: key -> the first characters of the text, of the column's top values. Counts of rows: `empty`, `blank`
    (spaces only), `padded` (spaces at an end of other text), `zero_led` (whole numbers with leading zeros, which a
    cast would lose), and `forms`: by what a cast would take: int, float, bool, timestamp, or a format of dates."""

    words: Mapping[int, str]
    characters: int
    lengths: QuantileSketch
    empty: int
    blank: int
    padded: int
    zero_led: int
    forms: Mapping[str, int]


def encoded(series: pd.Series) -> tuple[pa.StringArray, NDArray[np.int64], NDArray[np.uint64]]:
    """Distinct texts of a column, the code of every row (-1 for null), and the hash of every distinct text."""
    array = pa.array(series, from_pandas=True)
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    both = array.cast(pa.large_string()).dictionary_encode()
    texts = both.dictionary
    codes = both.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return texts, codes, hash_texts(bytes_of(texts))


def gather_texts(texts: pa.StringArray, hashes: NDArray[np.uint64], counts: NDArray[np.int64], top: Frequent) -> Texts:
    """Of distinct texts with their hashes and counts; `top` are the values whose words are kept."""
    lengths = pc.utf8_length(texts).to_numpy(zero_copy_only=False).astype(np.int64)
    distinct, places = np.unique(lengths, return_inverse=True)
    by_length = np.bincount(places, weights=counts, minlength=distinct.size).astype(np.int64)
    trimmed = pc.utf8_length(pc.utf8_trim_whitespace(texts)).to_numpy(zero_copy_only=False)
    kept = np.flatnonzero(np.isin(hashes, top.keys))
    shown = pc.utf8_slice_codeunits(texts.take(pa.array(kept)), 0, SHOWN).to_pylist()
    empty = lengths == 0
    forms, zero_led = _forms(texts, counts)
    return Texts(
        words=dict(zip(hashes[kept].tolist(), shown, strict=True)),
        characters=int(np.dot(lengths, counts)),
        lengths=sketch_counts(key_of_int64(distinct), by_length, LENGTHS),
        empty=int(counts[empty].sum()),
        blank=int(counts[(trimmed == 0) & ~empty].sum()),
        padded=int(counts[(trimmed < lengths) & (trimmed > 0)].sum()),
        zero_led=zero_led,
        forms=forms,
    )


def merge_texts(parts: Sequence[Texts], top: Frequent) -> Texts:
    """Of several parts, at least one, of whose values `top` are the most frequent."""
    words: dict[int, str] = {}
    for part in parts:
        words.update(part.words)
    forms = {form: sum(part.forms.get(form, 0) for part in parts) for form in _names(parts)}
    return Texts(
        words={key: words[key] for key in top.keys.tolist()},
        characters=sum(part.characters for part in parts),
        lengths=merge_all([part.lengths for part in parts]),
        empty=sum(part.empty for part in parts),
        blank=sum(part.blank for part in parts),
        padded=sum(part.padded for part in parts),
        zero_led=sum(part.zero_led for part in parts),
        forms=forms,
    )


def forms_of(texts: Sequence[str]) -> dict[str, NDArray[np.bool_]]:
    """By form, which of the texts a cast would take."""
    return {form: mask for form, mask, _ in _found(pa.array(texts, pa.large_string()))}


def _names(parts: Sequence[Texts]) -> list[str]:
    order = ("int", "float", "bool", "timestamp", *DATE_FORMATS)
    found: set[str] = reduce(lambda names, part: names | set(part.forms), parts, set())
    return [name for name in order if name in found]


def _forms(texts: pa.StringArray, counts: NDArray[np.int64]) -> tuple[dict[str, int], int]:
    forms, zero_led = {}, 0
    for form, mask, zeros in _found(texts):
        rows = int(counts[mask].sum())
        if rows:
            forms[form] = rows
        if zeros is not None:
            zero_led = int(counts[zeros].sum())
    return forms, zero_led


def _found(texts: pa.StringArray) -> list[tuple[str, NDArray[np.bool_], NDArray[np.bool_] | None]]:
    """Form, the texts that have it, and which of them begin with a zero that a cast would lose (int only)."""
    found: list[tuple[str, NDArray[np.bool_], NDArray[np.bool_] | None]] = []
    numeric = _matching(texts, NUMBER)
    if numeric.any():
        whole = _integers(texts, numeric)
        found += [("int", whole, whole & _matching(texts, r"^\s*[+-]?0[0-9]")), ("float", numeric, None)]
    words = pc.utf8_lower(texts)
    found.append(("bool", _mask(pc.is_in(words, pa.array(["true", "false"], pa.large_string()))), None))
    # Nothing without a digit is a date, and most texts have none in the right place.
    dated = _matching(texts, r"[0-9]{1,4}[-/. ][0-9A-Za-z]{1,9}[-/. ,]|^[A-Za-z]{3,9} [0-9]{1,2}, ")
    if dated.any():
        candidates = texts.filter(pa.array(dated))
        for form, read in (("timestamp", _read_iso), *((f, _reader(f)) for f in DATE_FORMATS)):
            mask = np.zeros(len(texts), dtype=np.bool_)
            mask[dated] = read(candidates)
            found.append((form, mask, None))
    return found


def _integers(texts: pa.StringArray, numeric: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which of the texts that are numbers a cast to int would take, as `treadle.engine.cast` decides it."""
    whole = _matching(texts, SHORT_INTEGER)
    others = numeric & ~whole
    if others.any():
        values = pd.Series(texts.filter(pa.array(others)).to_pandas(), dtype="string")
        doubles = CONVERSIONS[Kind.TEXT, Kind.DOUBLE](values)
        lost = CONVERSIONS[Kind.TEXT, Kind.INTEGER](values).isna() | (doubles.abs() % 1 > 0).fillna(False)
        whole[others] = ~lost.to_numpy(bool)
    return whole


def _read_iso(texts: pa.StringArray) -> NDArray[np.bool_]:
    return _converted(texts, ISO, CONVERSIONS[Kind.TEXT, Kind.TIMESTAMP])


def _reader(form: str) -> Callable[[pa.StringArray], NDArray[np.bool_]]:
    pattern = form
    for directive, expression in _PATTERNS.items():
        pattern = pattern.replace(directive, expression)

    def read(values: pd.Series) -> pd.Series:
        return pd.to_datetime(values, format=form, errors="coerce", utc=True)

    return lambda texts: _converted(texts, f"^{pattern}$", read)


def _converted(texts: pa.StringArray, pattern: str, convert: Callable[[pd.Series], pd.Series]) -> NDArray[np.bool_]:
    """Which texts match a pattern, which is quick to tell, and convert, which is not."""
    matching = _matching(texts, pattern)
    if matching.any():
        values = pd.Series(texts.filter(pa.array(matching)).to_pandas(), dtype="string")
        matching[matching] = convert(values).notna().to_numpy(bool)
    return matching


def _matching(texts: pa.StringArray, pattern: str) -> NDArray[np.bool_]:
    return _mask(pc.match_substring_regex(texts, pattern))


def _mask(found: pa.BooleanArray) -> NDArray[np.bool_]:
    return found.to_numpy(zero_copy_only=False).astype(np.bool_)
