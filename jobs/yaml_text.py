"""YAML as text, for documents with comments that people are to read: scalars, lists and mappings in flow style."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

WIDTH = 116
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*([-./][A-Za-z0-9_]+)*")
_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n", "nan", "inf", "none"})
# What YAML does not take inside quotes as it is: controls, halves of surrogate pairs, two odd code points.
_ODD = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff\ufffe\uffff]")


def scalar(value: str | int | float | bool | None) -> str:
    """A value as YAML 1.2 reads it back; a text in double quotes unless it is a plain word."""
    if not isinstance(value, str):
        return json.dumps(value)
    if _PLAIN.fullmatch(value) and value.casefold() not in _WORDS:
        return value
    return _ODD.sub(lambda odd: f"\\u{ord(odd[0]):04x}", json.dumps(value, ensure_ascii=False))


def flow_list(values: Iterable[str | int | float | bool | None], indent: int = 4) -> str:
    """`[a, b]`, over several lines when it is long."""
    return _flow("[", [scalar(value) for value in values], "]", indent)


def flow_map(values: Mapping[str, str | int | float | bool | None], indent: int = 4) -> str:
    """`{a: 1, b: 2}`, over several lines when it is long."""
    return _flow("{", [f"{scalar(key)}: {scalar(value)}" for key, value in values.items()], "}", indent)


def inline(value: object) -> str:
    """Lists and mappings in any depth as YAML on one line."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{scalar(str(key))}: {inline(one)}' for key, one in value.items())}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(inline(one) for one in value)}]"
    assert value is None or isinstance(value, (str, int, float, bool))
    return scalar(value)


def _flow(opening: str, items: list[str], closing: str, indent: int) -> str:
    lines = [""]
    for i, item in enumerate(items):
        text = item if i == len(items) - 1 else f"{item},"
        if lines[-1] and len(lines[-1]) + len(text) + indent + 1 > WIDTH:
            lines.append(text)
        else:
            lines[-1] += f" {text}" if lines[-1] else text
    if len(lines) == 1:
        return f"{opening}{lines[0]}{closing}"
    space = " " * indent
    return "\n".join([opening, *(f"{space}{line}" for line in lines), f"{' ' * (indent - 2)}{closing}"])
