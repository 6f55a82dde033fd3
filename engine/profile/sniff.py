"""How a delimited text file is written, guessed from its beginning: encoding, delimiter, decimal sign, header."""

from __future__ import annotations

import codecs
import csv
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from treadle.engine.inputs import filesystem
from treadle.engine.readers.text import open_text

LOOKED_AT = 256 * 2**10
"""Bytes."""
MOST_ROWS = 1000
DELIMITERS = (",", ";", "\t", "|")
ALIKE = 0.9
"""Share of the rows that have the same number of fields, from which a delimiter is believed."""
_POINT = re.compile(r"[+-]?[0-9]*\.[0-9]+")
_COMMA = re.compile(r"[+-]?([0-9]+|[0-9]{1,3}(\.[0-9]{3})+),[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+([.,][0-9]*)?|[.,][0-9]+)([eE][+-]?[0-9]+)?")


def sniff(path: str, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Keys of the spec's section `data` that differ from their defaults: encoding, delimiter, decimal, header.

    What is `given` of them is taken as it is, and not returned.
    """
    given = given or {}
    fs, bare = filesystem(path)
    encoding = given.get("encoding") or _encoding(fs, bare)
    with open_text(fs, bare, encoding) as reader:
        text = reader.read(LOOKED_AT).decode("utf-8", "replace")
    lines = text.splitlines()
    if len(text) >= LOOKED_AT // 2 and len(lines) > 1:
        lines.pop()  # it may be cut
    lines = [line for line in lines[:MOST_ROWS] if line.strip()]
    found: dict[str, Any] = {} if encoding == "utf-8" else {"encoding": encoding}
    delimiter, rows = _delimiter(lines, [given["delimiter"]] if "delimiter" in given else DELIMITERS)
    if delimiter != ",":
        found["delimiter"] = delimiter
        cells = [cell.strip() for row in rows[1:] for cell in row]
        points, commas = (sum(bool(form.fullmatch(cell)) for cell in cells) for form in (_POINT, _COMMA))
        if commas > points:
            found["decimal"] = ","
    if not _has_header(rows):
        found["header"] = False
    return {key: value for key, value in found.items() if key not in given}


def _encoding(fs: Any, path: str) -> str:
    with fs.open(path, "rb", compression="infer") as file:
        raw = file.read(LOOKED_AT)
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        decoder.decode(raw)
    except UnicodeDecodeError:
        # Five bytes mean nothing in cp1252, which else says more than latin-1 with the rest.
        return "latin-1" if any(byte in raw for byte in b"\x81\x8d\x8f\x90\x9d") else "cp1252"
    return "utf-8"


def _delimiter(lines: list[str], choices: Sequence[str]) -> tuple[str, list[list[str]]]:
    """The delimiter by which most rows have the same number of fields, more than one; else the first."""
    best, most = choices[0], (0.0, 1)
    rows = [line.split(best) for line in lines]
    for delimiter in choices:
        try:
            cut = [row for row in csv.reader(lines, delimiter=delimiter) if row]
        except csv.Error:
            continue
        if not cut:
            continue
        fields, number = Counter(map(len, cut)).most_common(1)[0]
        share = number / len(cut)
        if fields > 1 and share >= ALIKE and (share > most[0] + 0.01 or (share > most[0] - 0.01 and fields > most[1])):
            best, rows, most = delimiter, cut, (share, fields)
    return best, rows


def _has_header(rows: list[list[str]]) -> bool:
    """False only where columns of numbers have a number in the first row, too, and a text there is seen again: the
    first row may be years."""
    if len(rows) < 2:
        return True
    first, rest = rows[0], [row for row in rows[1:] if len(row) == len(rows[0])]
    numeric, again = [], []
    for i, name in enumerate(first):
        values = {value for row in rest if (value := row[i].strip())}
        if values and all(map(_NUMBER.fullmatch, values)):
            numeric.append(bool(_NUMBER.fullmatch(name.strip())))
        elif values:
            again.append(name.strip() in values)
    return not numeric or not all(numeric) or (bool(again) and not any(again))
