"""JSON lines as typed Parquet: one object a line, its keys as columns, broken lines set aside.

Blocks of lines go through Arrow's reader, which is quick and refuses a block as a whole. What it
refuses is read once more line by line, so that one broken line costs its row and nothing else. Both
ways give the same values: what Arrow accepts is checked to be what the slow way would accept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as arrow_json

from treadle.engine.backend import ARROW_TYPES
from treadle.engine.inputs import filesystem
from treadle.engine.readers.csv import misfits
from treadle.engine.readers.jsonl_lines import Broken, LineBlock, kind_of, line_blocks, read_head, text_form
from treadle.engine.readers.options import TextOptions
from treadle.engine.readers.parts import BLOCK_BYTES, BadRow, Parts
from treadle.engine.readers.schemas import NULL, Rules, Sampled
from treadle.engine.readers.values import cleared, convert, infer
from treadle.errors import DataError

RULES = Rules(lacking_is_null=True, times_are_text=True, nested_as_text=True, types_may_add=True)
MOST_OPENINGS = 500
"""Brackets that a line may open on Arrow's way, whose recursion over nested values has no limit of its own."""
PIECE_BYTES = 2**18
"""Lines that are read one by one where Arrow refuses a block."""
FITTING = {"int": ("int",), "float": ("int", "float"), "bool": ("bool",), "text": ("text",), "timestamp": ("text",)}
"""What JSON values a column takes whose type is inferred."""
LONG = "a whole number beyond 64 bits"
NESTED = ("a list", "an object")
OWN_NUMBERS = re.compile(rb"[:,\[]\s*(?:-NaN|-?Inf)\s*[,}\]]")
"""Spellings that Arrow takes for numbers, and nobody else."""


def sample(path: str, options: TextOptions) -> Sampled:
    """Keys and kinds of a file's first lines, in the order in which keys occur.

    Numbers are int or float, texts are timestamps if all are. Broken lines are left to `convert_file`.

    Raises
    ------
    DataError
        The file cannot be decompressed, or none of the lines is a JSON object.
    """
    options = _for_json(options)
    head = read_head(*filesystem(path), options.encoding)
    if head is None:
        return Sampled({}, has_rows=False)
    columns: dict[str, dict[str, str]] = {}
    broken: list[str] = []
    texts: dict[str, list[str]] = {}
    for line in range(len(head)):
        try:
            values = head.values_of(line, options.encoding)
        except Broken as error:
            broken.append(f"line {head.numbers[line]}: {error}")
            continue
        for name, value in values.items():
            kind = kind_of(value)
            places = columns.setdefault(name, {})
            # A key of more than 64 bits is an int that none holds: it counts as both.
            long = kind == "int" and not -(2**63) <= int(value) < 2**63
            for found in (kind, LONG) if long else (kind,):
                if found not in places:
                    places[found] = f"line {head.numbers[line]} of '{path}'"
            if kind == "text":
                texts.setdefault(name, []).append(value)
    if len(broken) == len(head):
        raise DataError(
            f"None of the first {len(head)} lines of '{path}' is a JSON object; {broken[0]}. "
            "See data.format and data.encoding."
        )
    for name, values_of_column in texts.items():
        if infer(pa.array(values_of_column, pa.string()), options) == "timestamp":
            columns[name] = {"timestamp" if kind == "text" else kind: place for kind, place in columns[name].items()}
    return Sampled(
        {name: _nested(kinds) if name in options.types else kinds for name, kinds in columns.items()}, has_rows=True
    )


def convert_file(
    path: str,
    kinds: Mapping[str, str],
    left_out: Mapping[str, str],
    options: TextOptions,
    out: Parts,
    block_bytes: int = BLOCK_BYTES,
) -> None:
    """Reads a file into `out`; a block of `block_bytes` of text makes one part.

    A key that is neither in `kinds` nor `left_out` breaks its line: leaving the value out would lose it in silence.

    Raises
    ------
    DataError
        The file cannot be decompressed.
    StorageError
        The parts cannot be written.
    """
    options = _for_json(options)
    for block in line_blocks(*filesystem(path), options.encoding, block_bytes):
        if not len(block):
            continue
        table = _at_once(block, kinds, left_out)
        pieces = [(block, table)]
        if table is None:
            # What is broken costs only the lines near it the slow way.
            pieces = [(piece, _at_once(piece, kinds, left_out)) for piece in block.pieces(PIECE_BYTES)]
        typed = []
        for piece, table in pieces:
            reasons: dict[int, str] = {}
            lines = np.arange(len(piece))
            fitting: Mapping[str, np.ndarray] = {}
            if table is None:
                table, lines, fitting = _line_by_line(piece, kinds, left_out, options, reasons)
            typed.append(_typed(table, lines, fitting, kinds, options, reasons))
            for line, reason in sorted(reasons.items()):
                out.refuse(BadRow(path, int(piece.numbers[line]), reason, piece.text_of(line)))
        out.add(pa.concat_tables(typed))


def _for_json(options: TextOptions) -> TextOptions:
    """Numbers have one spelling in JSON, whatever it is in CSV files."""
    return replace(options, delimiter=",", quote='"', decimal=".", thousands=None)


def _nested(kinds: Mapping[str, str]) -> dict[str, str]:
    """Of a column whose type is given, only what no type makes a value of."""
    return {kind: place for kind, place in kinds.items() if kind in NESTED} or {NULL: next(iter(kinds.values()))}


def _at_once(block: LineBlock, kinds: Mapping[str, str], left_out: Mapping[str, str]) -> pa.Table | None:
    """The block as Arrow reads it, a row for each line; None when it must be looked at line by line."""
    codes = np.frombuffer(block.data, np.uint8)
    if (
        not block.is_valid
        or block.openings > MOST_OPENINGS
        # Arrow takes any number of objects on a line, and objects that go over several.
        or (codes[block.starts] != ord("{")).any()
        or (codes[block.ends - 1] != ord("}")).any()
        or ((b"Inf" in block.data or b"-NaN" in block.data) and OWN_NUMBERS.search(block.data))
    ):
        return None
    as_read = {name: "text" if kind == "timestamp" else kind for name, kind in kinds.items()}
    try:
        table = arrow_json.read_json(
            pa.BufferReader(block.data),
            arrow_json.ReadOptions(use_threads=False, block_size=len(block.data) + 1),
            arrow_json.ParseOptions(
                explicit_schema=pa.schema([(name, ARROW_TYPES[kind]) for name, kind in as_read.items()]),
                unexpected_field_behavior="infer",
            ),
        )
    except pa.ArrowInvalid:
        return None
    known = {*kinds, *left_out}
    if table.num_rows != len(block) or any(name not in known for name in table.column_names):
        return None
    return table.select(list(kinds)).combine_chunks()


def _line_by_line(
    block: LineBlock,
    kinds: Mapping[str, str],
    left_out: Mapping[str, str],
    options: TextOptions,
    reasons: dict[int, str],
) -> tuple[pa.Table, np.ndarray, dict[str, np.ndarray]]:
    """The readable lines as texts, their numbers in the block, and by column which values are fit for its kind."""
    rows: list[dict[str, Any]] = []
    lines: list[int] = []
    for line in range(len(block)):
        try:
            values = block.values_of(line, options.encoding)
        except Broken as error:
            reasons[line] = str(error)
            continue
        unknown = next((name for name in values if name not in kinds and name not in left_out), None)
        if unknown is not None:
            type_ = kind_of(values[unknown])
            type_ = type_ if type_ in ARROW_TYPES else "text"
            reasons[line] = f"the key '{unknown}' is not in the first rows; set data.types: {{{unknown}: {type_}}}"
            continue
        rows.append(values)
        lines.append(line)
    texts, fitting = {}, {}
    for name, kind in kinds.items():
        values_of_column = [row.get(name) for row in rows]
        texts[name] = pa.array([text_form(value) for value in values_of_column], pa.string())
        if name not in options.types:
            found = (*FITTING[kind], NULL)
            fitting[name] = np.array([kind_of(value) in found for value in values_of_column], np.bool_)
    return pa.table(texts), np.array(lines, np.int64), fitting


def _typed(
    table: pa.Table,
    lines: np.ndarray,
    fitting: Mapping[str, np.ndarray],
    kinds: Mapping[str, str],
    options: TextOptions,
    reasons: dict[int, str],
) -> pa.Table:
    """The rows of a block whose values are all of their columns' kinds; adds why others are not to `reasons`."""
    columns = {}
    good = np.ones(len(lines), np.bool_)
    for name, kind in kinds.items():
        values = table.column(name).combine_chunks()
        columns[name] = values
        if values.type == ARROW_TYPES[kind] and name not in fitting:
            continue
        given = name in options.types
        texts = cleared(values, options.null_tokens) if given and kind != "text" else values
        columns[name] = convert(texts, kind, options, given=given)
        failed = np.asarray(pc.and_(pc.is_valid(texts), pc.is_null(columns[name])))
        failed = (failed | ~fitting.get(name, np.ones(len(lines), np.bool_))) & good
        if failed.any():
            words = _misfits(name, values.filter(pa.array(failed)), kind, options)
            reasons.update(zip(lines[failed].tolist(), words, strict=True))
            good &= ~failed
    made = pa.table(columns, pa.schema([(name, ARROW_TYPES[kind]) for name, kind in kinds.items()]))
    return made if good.all() else made.filter(pa.array(good))


def _misfits(name: str, values: pa.StringArray, kind: str, options: TextOptions) -> list[str]:
    """Why each value is not of its column's kind; one that is in the words of CSV has another type in JSON."""
    would_do = pc.is_valid(convert(values, kind, options)).to_pylist()
    words = misfits(name, values, kind, options)
    other = f" in another JSON type than in the first rows (data.types: {{{name}: {kind}}} takes both)"
    return [
        word.partition("' is not ")[0] + "' is" + other if does else word
        for word, does in zip(words, would_do, strict=True)
    ]
