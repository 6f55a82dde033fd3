"""The content of text files as UTF-8, decompressed, in pieces of any size."""

from __future__ import annotations

import codecs
import contextlib
import lzma
from collections.abc import Iterator
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa

from treadle.errors import DataError

UNDECODABLE = "treadle.undecodable"
"""The handler of codec errors that `_mark_undecodable` is registered as."""
COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".xz": "xz"}
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
SAMPLE_BYTES = 4 * 2**20
SAMPLE_ROWS = 20_000
"""Types are inferred from so much of the start of every file."""
RECORD_LIMIT = 64 * 2**20
"""Bytes; a longer row is a sign that the file is something else than text of the kind that was asked for."""
SHOWN_TEXT = 1000
"""Characters of a broken row that are kept."""
LOOKED_AT = 4096
"""Bytes at the start of a file by which text is told from what is none."""


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
        """About `size` bytes more; b"" only at the end of the file.

        Raises
        ------
        DataError
            The file cannot be decompressed, or starts like no text in its encoding.
        """
        text = self._read_utf8(max(size, len(codecs.BOM_UTF8)))
        if self._at_start:
            self._check_start(text)
            if text.startswith(codecs.BOM_UTF8):
                text = text[len(codecs.BOM_UTF8) :]
                self.offset = len(codecs.BOM_UTF8)
                text = text or self._read_utf8(size)
        self._at_start = False
        return text

    def read_on(self, rest: bytes, size: int) -> tuple[bytes, bool]:
        """`rest` and about `size` bytes more, and whether the file ends with them."""
        more = self.read(size)
        ahead = self.read(1)
        return b"".join((rest, more, ahead)), not ahead

    def check_size(self, line: int, rest: bytes, remedy: str) -> None:
        """Refuses a record that is longer than any should be."""
        if len(rest) > RECORD_LIMIT:
            raise DataError(
                f"'{self._path}', line {line}: a row of more than {RECORD_LIMIT // 2**20} MiB; "
                f"check that the file is {remedy}."
            )

    def _check_start(self, text: bytes) -> None:
        start = text[:LOOKED_AT]
        if self._decoder is None and start.startswith(UTF_16):
            raise DataError(f"'{self._path}' starts with the byte-order mark of UTF-16; set data.encoding: utf-16.")
        if b"\0" in start:
            raise DataError(
                f"'{self._path}' has zero bytes at its start, which text has not: it may be UTF-16 without a "
                "byte-order mark (data.encoding: utf-16-le), compressed (its name must end in "
                f"{', '.join(COMPRESSIONS)}), or of another format (data.format)."
            )

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
        except (OSError, EOFError, lzma.LZMAError) as error:
            if self._codec is None:
                raise
            raise DataError(
                f"'{self._path}' cannot be decompressed as {self._codec}: {error}. Replace it or leave it out."
            ) from error


@contextlib.contextmanager
def open_text(fs: fsspec.AbstractFileSystem, path: str, encoding: str) -> Iterator[TextReader]:
    """The file's text, decompressed as its name says, in upper or lower case: .gz, .bz2, .zst or .xz."""
    codec = next((codec for suffix, codec in COMPRESSIONS.items() if path.lower().endswith(suffix)), None)
    with fs.open(path, "rb") as raw:
        if codec == "xz":
            with lzma.LZMAFile(raw) as stream:
                yield TextReader(stream, path, encoding, codec)
            return
        stream = pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), codec) if codec else raw
        yield TextReader(stream, path, encoding, codec)


def is_utf8(encoding: str) -> bool:
    return codecs.lookup(encoding).name in ("utf-8", "utf-8-sig")


def is_valid_utf8(data: bytes, size: int) -> bool:
    """Whether the first `size` bytes, below 2**31, are UTF-8."""
    offsets = np.array([0, size], np.int32)
    try:
        pa.StringArray.from_buffers(1, pa.py_buffer(offsets), pa.py_buffer(data)).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def undecodable(data: bytes, at: int, offset: int, encoding: str) -> str:
    """The reason why a row is broken whose byte `at` of `data` is not UTF-8; `offset` is where `data` starts."""
    if not is_utf8(encoding):
        return f"bytes that are not {encoding}; see data.encoding"
    return (
        f"byte 0x{data[at]:02x} at offset {offset + at} of the file is not utf-8; "
        "see data.encoding (latin-1, cp1252, ...)"
    )


def shown(data: bytes, start: int, end: int) -> str:
    """The first characters of a row as they stand in the file, undecodable ones as U+FFFD."""
    return data[start : min(end, start + 4 * SHOWN_TEXT)].decode("utf-8", "replace")[:SHOWN_TEXT]


def _mark_undecodable(error: UnicodeError) -> tuple[str | bytes, int]:
    if isinstance(error, UnicodeDecodeError):
        return "\udcff", error.end
    if isinstance(error, UnicodeEncodeError):
        return b"\xff" * (error.end - error.start), error.end
    raise error


codecs.register_error(UNDECODABLE, _mark_undecodable)
