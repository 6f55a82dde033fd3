"""hash_encode and text: values and words by a hash, and how long texts are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from treadle.engine.encoders.base import MAX_LEVELS, Fitted, Kind, Operation, Titles
from treadle.engine.encoders.columns import Indicator, Training, arrow, is_text, numbers, texts

if TYPE_CHECKING:
    import pyarrow as pa

    from treadle.engine.encoders.columns import Column

NO_WORD = r"[^\pL\pM\pN_]+"
"""What stands between words: all but letters, marks, numbers and underscores, in the syntax of RE2."""


class FittedHash(Fitted):
    op: Literal["hash_encode"] = "hash_encode"
    columns: tuple[str, ...]
    buckets: int

    @property
    def names(self) -> tuple[str, ...]:
        return self.columns

    def place(self, name: str, kind: Kind) -> Titles:
        return [(title, "indicator") for title in _buckets(name, self.buckets)]

    def effect(self, name: str, column: Column, training: Training | None) -> Sequence[Column]:
        values = arrow(column)
        codes = (_hashes(values, column) % np.uint64(self.buckets)).astype(np.int32)
        if values.null_count:
            codes = np.where(values.is_null().to_numpy(zero_copy_only=False), np.int32(-1), codes)
        return [Indicator(codes, bucket) for bucket in range(self.buckets)]


class HashEncode(Operation):
    """A 0/1 column for each bucket of the values' hashes, `column#0` and so on; nulls are in none.

    Nothing is learnt, so no value is unseen; values that share a bucket cannot be told apart.
    """

    op: Literal["hash_encode"]
    buckets: Annotated[int, Field(ge=2, le=MAX_LEVELS)] = 64

    def accepted(self) -> frozenset[Kind]:
        return frozenset({"text", "number", "indicator"})

    def fit(self, names: Sequence[str], statistics: Mapping[str, Any]) -> Fitted:
        return FittedHash(columns=tuple(names), buckets=self.buckets)


class FittedText(Fitted):
    op: Literal["text"] = "text"
    columns: tuple[str, ...]
    outputs: tuple[str, ...]
    hash_tokens: int

    @property
    def names(self) -> tuple[str, ...]:
        return self.columns

    def place(self, name: str, kind: Kind) -> Titles:
        own: Titles = [(f"{name}_{output}", "number") for output in dict.fromkeys(self.outputs)]
        return [*own, *((title, "number") for title in _buckets(name, self.hash_tokens))]

    def effect(self, name: str, column: Column, training: Training | None) -> Sequence[Column]:
        import pyarrow.compute as pc

        from treadle.kernels.texts import count_tokens, hash_tokens

        values = arrow(column)
        null = values.is_null().to_numpy(zero_copy_only=False)
        made: list[Column] = []
        if "words" in self.outputs or self.hash_tokens:
            words = texts(pc.replace_substring_regex(pc.utf8_lower(values), NO_WORD, " "))
        for output in dict.fromkeys(self.outputs):
            counts = pc.utf8_length(values).fill_null(0).to_numpy() if output == "length" else count_tokens(words)
            made.append(np.where(null, np.nan, counts))
        if self.hash_tokens:
            made += [*hash_tokens(words, self.hash_tokens).T]
        return made


class Text(Operation):
    """Numbers in the place of a text: its length in characters, its words, and how many of its words have each hash.

    Words are runs of letters, marks, numbers and underscores, in lower case. A null has no length and no
    number of words, and is 0 in every column of hashes.
    """

    op: Literal["text"]
    outputs: tuple[Literal["length", "words"], ...] = ("length", "words")
    hash_tokens: Annotated[int, Field(ge=0, le=MAX_LEVELS)] = 0
    """Columns `<column>#0` and so on; none when 0."""

    @model_validator(mode="after")
    def _makes_something(self) -> Text:
        if not self.outputs and not self.hash_tokens:
            raise PydanticCustomError("text", "text: neither outputs nor hash_tokens are asked for")
        return self

    def accepted(self) -> frozenset[Kind]:
        return frozenset({"text"})

    def fit(self, names: Sequence[str], statistics: Mapping[str, Any]) -> Fitted:
        return FittedText(columns=tuple(names), outputs=self.outputs, hash_tokens=self.hash_tokens)


def _buckets(name: str, number: int) -> list[str]:
    return [f"{name}#{bucket}" for bucket in range(number)]


def _hashes(values: pa.Array, column: Column) -> NDArray[np.uint64]:
    """The hash of every value: of its bytes, or of the 64 bits of the number as float64."""
    from treadle.kernels.texts import hash_texts

    if is_text(values):
        return hash_texts(texts(values))
    from treadle.kernels.hashing import mix64

    return mix64((numbers(column) + 0.0).view(np.uint64), 0)
