"""What is wrong with a job spec, and the words for it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from treadle.errors import RequestError

type KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Problem:
    """One mistake: the dotted `path` to it ('' for the whole spec), the `line` of its key counted
    from 1 (None where no file has one), the offending `value` and the `message`."""

    path: str
    line: int | None
    value: object
    message: str

    def __str__(self) -> str:
        where = [f"line {self.line}"] if self.line else []
        where += [self.path] if self.path else []
        return f"{', '.join(where)}: {self.message}" if where else self.message


class SpecError(RequestError):
    """All that is wrong with a job spec: `problems`, in the order of their lines."""

    def __init__(self, name: str, problems: tuple[Problem, ...]) -> None:
        super().__init__(name, problems)
        self.name = name
        self.problems = tuple(sorted(problems, key=lambda problem: (problem.line is None, problem.line or 0)))

    def __str__(self) -> str:
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        text = "\n  ".join([f"{self.name}: {count}", *map(str, self.problems)])
        # Half a surrogate pair, which JSON can spell, cannot be printed.
        return text.encode("utf-8", "backslashreplace").decode("utf-8")


def dotted(path: KeyPath) -> str:
    """'models.0.name' for ('models', 0, 'name')."""
    return ".".join(str(key) if str(key).isprintable() else repr(key) for key in path)


def described(value: object) -> str:
    """A value for a message: a text in quotes, a number, true, 'a list'."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else f"{value[:57]}...")
    if isinstance(value, int):
        # Python refuses to write out whole numbers of thousands of digits.
        return str(value) if value.bit_length() < 200 else f"about 1e{round(value.bit_length() * math.log10(2))}"
    if isinstance(value, float):
        return str(value)
    if isinstance(value, Mapping):
        return "a mapping"
    return "a list" if isinstance(value, list | tuple) else f"an object of type {type(value).__name__}"
