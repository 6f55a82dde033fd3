"""JSON lines as blocks of whole lines, and one line as a mapping of values.

Values keep the form in which they are written, so that a number can become text, or text of an
exact decimal, without a float in between.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import fsspec
import numpy as np
from numpy.typing import NDArray

from treadle.engine.readers.text import SAMPLE_BYTES, SAMPLE_ROWS, is_valid_utf8, open_text, shown, undecodable

LF, CR = 10, 13
BLANKS = b" \t\r\n"
BLANK = np.isin(np.arange(256), list(BLANKS))
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
REMEDY = "JSON lines, one object a line"


class Broken(ValueError):
    """A line that is no JSON object; the text says why."""


class _Int(str):
    """A whole number as it is written."""


class _Float(str):
    """A number with a fraction or an exponent, or NaN or Infinity, as it is written."""


@dataclass(frozen=True)
class LineBlock:
    """Bytes of one file, in UTF-8, and the lines in them that are not blank.

    `starts`, `ends` (lines,) int64 bound what stands on a line without the blanks around it; `numbers`
    (lines,) int64 are 1-based physical lines of the file. `offset` is the place of `data` in the
    decompressed file in bytes, when that is UTF-8.
    """

    data: bytes
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    numbers: NDArray[np.int64]
    offset: int

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def is_valid(self) -> bool:
        """Whether all of it is UTF-8."""
        return is_valid_utf8(self.data, len(self.data))

    @property
    def openings(self) -> int:
        """The largest number of brackets and braces that a line opens."""
        opened = np.zeros(256, np.bool_)
        opened[list(b"[{")] = True
        places = np.flatnonzero(opened[np.frombuffer(self.data, np.uint8)])
        counts = np.searchsorted(places, self.ends) - np.searchsorted(places, self.starts)
        return int(counts.max(initial=0))

    def pieces(self, size: int) -> Iterator[LineBlock]:
        """The block in consecutive blocks of at most `size` bytes or one line."""
        first = 0
        while first < len(self):
            start = int(self.starts[first])
            last = max(int(np.searchsorted(self.ends, start + size, "right")), first + 1)
            part = slice(first, last)
            data = self.data[start : int(self.ends[last - 1])]
            yield LineBlock(
                data, self.starts[part] - start, self.ends[part] - start, self.numbers[part], self.offset + start
            )
            first = last

    def text_of(self, line: int) -> str:
        return shown(self.data, int(self.starts[line]), int(self.ends[line]))

    def values_of(self, line: int, encoding: str) -> dict[str, Any]:
        """The values of a line by key; Broken when it is no object."""
        start = int(self.starts[line])
        raw = self.data[start : int(self.ends[line])]
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            raise Broken(undecodable(self.data, start + error.start, self.offset, encoding)) from error
        return parsed(text)


def line_blocks(fs: fsspec.AbstractFileSystem, path: str, encoding: str, block_bytes: int) -> Iterator[LineBlock]:
    """The whole file in blocks of about `block_bytes` of UTF-8; a longer line makes a longer block.

    Raises
    ------
    DataError
        A file that cannot be decompressed, or a line that is too long.
    """
    with open_text(fs, path, encoding) as text:
        rest, line, passed, final = b"", 1, 0, False
        while not final:
            data, final = text.read_on(rest, max(block_bytes, len(rest)))
            whole = len(data) if final else data.rfind(b"\n") + 1
            if whole:
                yield _lines(data[:whole], line, text.offset + passed)
            line += data.count(b"\n", 0, whole)
            rest = data[whole:]
            passed += whole
            text.check_size(line, rest, REMEDY)


def read_head(fs: fsspec.AbstractFileSystem, path: str, encoding: str) -> LineBlock | None:
    """The first lines of a file: of 4 MiB, at most 20,000; None when it has none.

    Raises
    ------
    DataError
        The file cannot be decompressed.
    """
    for block in line_blocks(fs, path, encoding, SAMPLE_BYTES):
        if len(block):
            first = slice(0, SAMPLE_ROWS)
            return LineBlock(block.data, block.starts[first], block.ends[first], block.numbers[first], block.offset)
    return None


def _lines(data: bytes, line: int, offset: int) -> LineBlock:
    codes = np.frombuffer(data, np.uint8)
    breaks = np.flatnonzero(codes == LF)
    starts = np.concatenate([[0], breaks + 1])
    ends = np.concatenate([breaks, [len(data)]])
    ends -= (ends > starts) & (codes[ends - 1] == CR)
    numbers = np.arange(line, line + len(starts))
    filled = ends > starts
    starts, ends, numbers = starts[filled], ends[filled], numbers[filled]
    for i in np.flatnonzero(BLANK[codes[starts]] | BLANK[codes[ends - 1]]).tolist():
        raw = data[starts[i] : ends[i]]
        starts[i] += len(raw) - len(raw.lstrip(BLANKS))
        ends[i] = starts[i] + len(raw.strip(BLANKS))
    filled = ends > starts
    return LineBlock(data, starts[filled], ends[filled], numbers[filled], offset)


def parsed(text: str) -> dict[str, Any]:
    """A JSON object whose numbers keep their form; Broken when the text is something else."""
    try:
        value = _DECODER.decode(text)
        if SURROGATE.search(text):
            json_text(value).encode()
    except json.JSONDecodeError as error:
        raise Broken(f"no JSON: {error.msg[:1].lower()}{error.msg[1:]} at character {error.pos + 1}") from error
    except UnicodeEncodeError as error:
        raise Broken("half a surrogate pair (\\ud800 to \\udfff) in a text") from error
    except RecursionError as error:
        raise Broken("nested too deeply") from error
    if not isinstance(value, dict):
        raise Broken(f"{described(value)} where an object is expected")
    return value


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise Broken(f"the key '{next(name for name in names if names.count(name) > 1)}' occurs twice")
    return values


_DECODER = json.JSONDecoder(parse_int=_Int, parse_float=_Float, parse_constant=_Float, object_pairs_hook=_without_twins)


_KINDS: Mapping[type, str] = {
    type(None): "null",
    bool: "bool",
    _Int: "int",
    _Float: "float",
    str: "text",
    dict: "an object",
    list: "a list",
}


def kind_of(value: Any) -> str:
    """null, bool, int, float, text, or what a nested value is."""
    return _KINDS[type(value)]


def described(value: Any) -> str:
    """What a value is, for a message."""
    kind = kind_of(value)
    return {"int": "a number", "float": "a number", "bool": "true or false", "text": "a text"}.get(kind, kind)


def text_form(value: Any) -> str | None:
    """A value as text: a text itself, anything else as JSON writes it; None for null."""
    return value if value is None or isinstance(value, str) else json_text(value)


def json_text(value: Any) -> str:
    """The value as JSON, numbers as they were written."""
    if isinstance(value, (_Int, _Float)):
        return str(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json_text(name)}: {json_text(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(json_text, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
