"""Delimited text files: how they are written, and their content as UTF-8."""

from __future__ import annotations

import codecs
import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import fsspec
import pandas as pd
import pyarrow as pa

from treadle.errors import DataError, RequestError, did_you_mean, listed

UNDECODABLE = "treadle.undecodable"
"""The handler of codec errors that `_mark_undecodable` is registered as."""
COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
ENCODINGS = ("utf-8", "latin-1", "cp1252", "utf-16", "iso8859-15", "cp437", "ascii", "shift_jis", "gb18030")
TYPES = ("int", "float", "bool", "timestamp", "date", "text")


@dataclass(frozen=True)
class CsvOptions:
    """How text files are written: the job spec's `data` section.

    Raises
    ------
    RequestError
        A delimiter or quote that is not one ASCII character or serves twice; an unknown encoding,
        type or directive of a date format.
    """

    delimiter: str = ","
    quote: str = '"'
    encoding: str = "utf-8"
    decimal: str = "."
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
        for name in ("quote", "decimal"):
            if getattr(self, name) == self.delimiter:
                raise RequestError(f"data.delimiter and data.{name} are both {self.delimiter!r}; change one.")
        for column, type_ in self.types.items():
            if type_ not in TYPES:
                raise RequestError(
                    f"data.types: column '{column}' has the unknown type '{type_}'. Types: [{listed(TYPES)}]."
                    f"{did_you_mean(type_, TYPES)}"
                )
        for format_ in self.date_formats:
            _check_date_format(format_)
        _check_encoding(self.encoding)


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


class TextReader:
    """The content of a file as UTF-8, without a byte-order mark.

    Bytes that the file's encoding does not have are read as 0xFF, which no UTF-8 has; those of a
    UTF-8 file stay as they are, so that their offsets are those of the file. `offset` is that of the
    first byte, once it is read.
    """

    def __init__(self, stream: Any, path: str, encoding: str, codec: str | None) -> None:
        self._stream, self._path, self._codec = stream, path, codec
        self._decoder = None if is_utf8(encoding) else codecs.getincrementaldecoder(encoding)(UNDECODABLE)
        self._at_start = True
        self.offset = 0

    def read(self, size: int) -> bytes:
        """About `size` bytes more; b"" only at the end of the file."""
        text = self._read_utf8(max(size, len(codecs.BOM_UTF8)))
        if self._at_start and text.startswith(codecs.BOM_UTF8):
            text = text[len(codecs.BOM_UTF8) :]
            self.offset = len(codecs.BOM_UTF8)
            text = text or self._read_utf8(size)
        self._at_start = False
        return text

    def _read_utf8(self, size: int) -> bytes:
        while True:
            chunk = self._read_bytes(size)
            if self._decoder is None:
                return chunk
            text = self._decoder.decode(chunk, final=not chunk)
            if text or not chunk:
                return text.encode("utf-8", UNDECODABLE)

    def _read_bytes(self, size: int) -> bytes:
        try:
            return self._stream.read(size)
        except OSError as error:
            if self._codec is None:
                raise
            raise DataError(
                f"'{self._path}' cannot be decompressed as {self._codec}: {error}. Replace it or leave it out."
            ) from error


@contextlib.contextmanager
def open_text(fs: fsspec.AbstractFileSystem, path: str, encoding: str) -> Iterator[TextReader]:
    """The file's text, decompressed as its name says: .gz, .bz2 or .zst."""
    codec = next((codec for suffix, codec in COMPRESSIONS.items() if path.endswith(suffix)), None)
    with fs.open(path, "rb") as raw:
        stream = pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), codec) if codec else raw
        yield TextReader(stream, path, encoding, codec)


def is_utf8(encoding: str) -> bool:
    return codecs.lookup(encoding).name in ("utf-8", "utf-8-sig")


def _mark_undecodable(error: UnicodeError) -> tuple[str | bytes, int]:
    if isinstance(error, UnicodeDecodeError):
        return "\udcff", error.end
    if isinstance(error, UnicodeEncodeError):
        return b"\xff" * (error.end - error.start), error.end
    raise error


codecs.register_error(UNDECODABLE, _mark_undecodable)
