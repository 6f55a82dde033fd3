"""Reads a job spec into its model; all that is wrong with it is told at once.

`load` is the one way from a file or a mapping, with the command line's `--set` overrides, to a
pydantic model. Mistakes of every kind (syntax, duplicate keys, overrides, values) become the
`problems` of one SpecError, each with the path, the line, the value and what is allowed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from treadle.jobs.documents import MAX_DEPTH, Document, read, read_value
from treadle.jobs.problems import KeyPath, Problem, SpecError, described, dotted

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = ["Problem", "SpecError", "load"]


def load[M: BaseModel](
    source: str | os.PathLike[str] | Mapping[str, Any],
    model: type[M],
    overrides: Sequence[str] = (),
    instead: Mapping[str, Any] | None = None,
) -> M:
    """A checked `model` from a .yaml, .yml or .json file or a mapping, which is not changed.

    Each override is a text `path=value`, such as `models.0.params.max_depth=8`: a dotted path to a
    key (items of lists by number), and a YAML value. Mappings on the way are created when missing.
    `instead` has values of whole keys, which count instead of the source's.

    Raises
    ------
    SpecError
        The spec or an override has mistakes: `problems` names all of them.
    RequestError
        The file is missing or cannot be read.
    """
    document = read(source)
    if not isinstance(document.data, dict):
        document.problems.append(document.report((), document.data, _no_mapping(document.data)))
        raise SpecError(document.name, tuple(document.problems))
    for override in overrides:
        _override(document, override)
    for key, value in (instead or {}).items():
        document.data[key] = value
        document.lines = {path: line for path, line in document.lines.items() if path and path[0] != key}
    parsed, found = _validated(document, model)
    # A duplicate key or a tag is the reason for whatever else is wrong at its place.
    known = {problem.path for problem in document.problems} - {""}
    problems = [*document.problems, *(problem for problem in found if problem.path not in known)]
    if parsed is None or problems:
        raise SpecError(document.name, tuple(problems))
    return parsed


def _no_mapping(data: object) -> str:
    found = "is empty" if data is None else f"is {described(data)}"
    return f"the spec {found}; it must be a mapping of keys to values, such as 'name: first-job'"


def _validated[M: BaseModel](document: Document, model: type[M]) -> tuple[M | None, list[Problem]]:
    from pydantic import ValidationError

    from treadle.jobs.explaining import explain

    try:
        return model.model_validate(document.data), []
    except ValidationError as error:
        return None, explain(error, model, document)


def _override(document: Document, text: str) -> None:
    """Sets one value in the document's data; a path that cannot be followed becomes a problem."""
    path_text, equals, value_text = text.partition("=")
    path_text = path_text.strip()
    parts = path_text.split(".")
    if not equals or not all(parts) or len(parts) > MAX_DEPTH:
        message = f"--set {described(text)} is not of the form path=value, such as data.path=other.parquet"
        document.problems.append(Problem("", None, text, message))
        return
    value, problems = read_value(value_text, tuple(parts))
    wrong = [(problem.path or path_text, problem.message) for problem in problems]
    if not problems:
        refusal = _set(document, document.data, (), parts, value)
        wrong = [(path_text, refusal)] if refusal else []
    document.problems += [Problem(path, None, value_text, f"{message} (from --set)") for path, message in wrong]


def _set(document: Document, here: Any, path: KeyPath, parts: list[str], value: object) -> str | None:
    """Sets what `parts` lead to from `here`, the data at `path`, or tells why they lead nowhere."""
    length: int = 1
    step: Any = parts[0]
    if isinstance(here, dict):
        # The longest key that exists, since names of columns may hold dots.
        lengths = (count for count in range(len(parts), 0, -1) if ".".join(parts[:count]) in here)
        length = next(lengths, 1)
        step = ".".join(parts[:length])
        child = here.get(step)
    elif isinstance(here, list):
        items = {str(number): number for number in range(len(here))}
        if step not in items:
            known = f"has the items 0 to {len(here) - 1}" if here else "is empty"
            return f"the list '{dotted(path)}' {known}; it has no item '{step}'"
        step = items[step]
        child = here[step]
    else:
        whole = f"set '{dotted(path)}' as a whole"
        return f"'{dotted(path)}' is {described(here)} and has no '{step}' to set; {whole}"
    path, rest = (*path, step), parts[length:]
    if rest and child is not None:
        return _set(document, child, path, rest, value)
    for part in reversed(rest):
        value = {part: value}
    here[step] = value
    document.overridden.add(path)
    return None
