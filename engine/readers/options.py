"""How text files are written: the reader's part of the job spec's `data` section."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from treadle.errors import RequestError, did_you_mean, listed

ENCODINGS = ("utf-8", "latin-1", "cp1252", "utf-16", "iso8859-15", "cp437", "ascii", "shift_jis", "gb18030")
TYPES = ("int", "float", "bool", "timestamp", "date", "text")


@dataclass(frozen=True)
class TextOptions:
    """How text files are written; JSON lines take `encoding`, `null_tokens`, `date_formats` and `types` of it.

    Raises
    ------
    RequestError
        A delimiter, quote or mark that is not one fitting character or serves twice; an unknown encoding,
        type or directive of a date format; names that occur twice.
    """

    delimiter: str = ","
    quote: str = '"'
    encoding: str = "utf-8"
    decimal: str = "."
    thousands: str | None = None
    """Mark between groups of three digits, such as , . ' or a space."""
    null_tokens: tuple[str, ...] = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None")
    """Values that mean that nothing is there, quoted or not."""
    header: bool = True
    names: tuple[str, ...] = ()
    """Column names of files without a header; column_1 and so on when absent."""
    date_formats: tuple[str, ...] = ()
    """strptime formats, tried in this order and before ISO 8601."""
    types: Mapping[str, str] = field(default_factory=dict)
    """By column name, the types that are not to be inferred."""

    def __post_init__(self) -> None:
        for name in ("delimiter", "quote"):
            value = getattr(self, name)
            if len(value) != 1 or not value.isascii() or value in "\r\n":
                raise RequestError(f"data.{name} is {value!r}; it must be one ASCII character, not a line end.")
        if self.thousands is not None and (
            len(self.thousands) != 1 or self.thousands.isalnum() or self.thousands in "+-\r\n"
        ):
            raise RequestError(
                f"data.thousands is {self.thousands!r}; it must be one character, no digit, letter or sign."
            )
        # A thousands mark may also be the delimiter: numbers that have it are quoted then.
        for name, other in (("delimiter", "quote"), ("delimiter", "decimal"), ("quote", "thousands")):
            if getattr(self, name) == getattr(self, other):
                raise RequestError(f"data.{name} and data.{other} are both {getattr(self, name)!r}; change one.")
        if self.thousands == self.decimal:
            raise RequestError(
                f"data.decimal and data.thousands are both {self.decimal!r}; "
                f"set data.decimal: '{',' if self.decimal == '.' else '.'}'."
            )
        twice = [name for name in self.names if self.names.count(name) > 1]
        if twice:
            raise RequestError(f"data.names has '{twice[0]}' twice; rename one of them.")
        for column, type_ in self.types.items():
            if type_ not in TYPES:
                raise RequestError(
                    f"data.types: column '{column}' has the unknown type '{type_}'. Types: [{listed(TYPES)}]."
                    f"{did_you_mean(type_, TYPES)}"
                )
        for format_ in self.date_formats:
            _check_date_format(format_)
        _check_encoding(self.encoding)


def given_kinds(types: Mapping[str, str]) -> dict[str, str]:
    """The engine's kinds of the types that a spec gives: a date is a timestamp at midnight."""
    return {name: "timestamp" if type_ == "date" else type_ for name, type_ in types.items()}


def _check_date_format(format_: str) -> None:
    try:
        if "%" not in format_:
            raise ValueError("it has no directive such as %Y")
        pd.to_datetime("", format=format_, errors="coerce")
    except ValueError as error:
        raise RequestError(
            f"data.date_formats: '{format_}' is no strptime format: {error}. An example is '%d/%m/%Y %H:%M'."
        ) from error


def _check_encoding(encoding: str) -> None:
    try:
        "a".encode(encoding)
    except LookupError as error:
        near = did_you_mean(encoding, ENCODINGS)
        raise RequestError(f"data.encoding '{encoding}' is no known text encoding.{near}") from error
