"""Pydantic's findings in the words of a job spec: the key that is wrong, what is allowed, the nearest name.

Pydantic places a finding by `loc`, which mixes the keys of the data with the names of union members.
The walk below follows the model's annotations beside the data to tell the two apart.
"""

from __future__ import annotations

import re
import types
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeAliasType, Union, get_args, get_origin

from pydantic import BaseModel, RootModel, ValidationError

from treadle.errors import did_you_mean, listed
from treadle.jobs.documents import Document
from treadle.jobs.problems import KeyPath, Problem, described

_ABSENT = object()
# Enough for every catalogue of names; only a list of hundreds is cut.
_LISTED = 40
MOST_ERRORS = 2000
"""That are told; the words for a hundred thousand of them would take minutes."""

# What was expected, by the type of pydantic's finding: the value is of another kind altogether.
_KINDS = {
    **dict.fromkeys(("string_type", "string_sub_type", "string_unicode"), "text"),
    **dict.fromkeys(("int_type", "int_parsing", "int_parsing_size", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("list_type", "tuple_type", "set_type", "frozen_set_type", "iterable_type"), "a list"),
    **dict.fromkeys(("dict_type", "mapping_type", "model_type", "model_attributes_type"), "a mapping"),
    **dict.fromkeys(("date_type", "date_parsing", "date_from_datetime_parsing"), "a date such as 2025-01-31"),
    **dict.fromkeys(
        ("datetime_type", "datetime_parsing", "datetime_from_date_parsing"),
        "a time such as 2025-01-31T12:00:00",
    ),
    "none_required": "null",
    "path_type": "a path",
}
# What it must be; the value is of the right kind.
_BOUNDS = {
    "greater_than": "greater than {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than": "less than {lt}",
    "less_than_equal": "{le} or less",
    "multiple_of": "a multiple of {multiple_of}",
    "finite_number": "a finite number",
    "string_too_short": "of length {min_length} or more",
    "string_too_long": "of length {max_length} or less",
    "too_short": "of length {min_length} or more",
    "too_long": "of length {max_length} or less",
    "string_pattern_mismatch": "text that matches {pattern}",
}
_CHOICES = ("literal_error", "enum")
_QUOTED = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"|[^\s,'\"]+")


@dataclass
class _Place:
    """Where in data and model a finding is."""

    path: KeyPath
    value: Any
    kind: Any
    """Annotation there, without Annotated and Optional; None when unknown."""
    discriminator: object
    owner: type[BaseModel] | None
    """Model that the last key belongs to."""
    unions: list[tuple[tuple[str | int, ...], str | int, KeyPath]]
    """Plain unions on the way, outermost first: the `loc` before each, the member, the path."""


@dataclass
class _Finding:
    type: str
    message: str
    context: Mapping[str, Any]
    value: object
    place: _Place

    @property
    def is_of_another_kind(self) -> bool:
        return self.type in _KINDS or (self.type in _CHOICES and isinstance(self.value, dict | list))

    @property
    def choices(self) -> list[str]:
        """The values of a Literal or an enum."""
        parts = _QUOTED.findall(str(self.context.get("expected", "")))
        return [part[1:-1] if part[0] in "'\"" else part for part in parts if part != "or"]

    @property
    def requirement(self) -> str | None:
        """What the value must be, to follow 'it must be'; None when only the message tells."""
        if self.type in _CHOICES:
            return f"one of [{listed(self.choices, _LISTED)}]"
        if self.type in _BOUNDS:
            return _BOUNDS[self.type].format_map({key: _bound(value) for key, value in self.context.items()})
        return _KINDS.get(self.type)


def explain(error: ValidationError, model: type[BaseModel], document: Document) -> list[Problem]:
    """One problem for each mistake in the data; the members of a union share one."""
    findings = []
    entries = error.errors(include_url=False)
    for entry in entries[:MOST_ERRORS]:
        place = _locate(model, document.data, entry["loc"], entry["type"])
        value = entry["input"] if place.value is _ABSENT else place.value
        findings.append(_Finding(entry["type"], entry["msg"], entry.get("ctx", {}), value, place))
    problems: dict[tuple[str, str], Problem] = {}
    for group in _settled(findings, 0):
        problem = document.report(*_worded(group))
        problems.setdefault((problem.path, problem.message), problem)
    left = len(entries) - MOST_ERRORS
    more = [document.report((), None, f"{left} more mistakes, which are not named")] if left > 0 else []
    return [*problems.values(), *more]


def _settled(findings: list[_Finding], depth: int) -> Iterator[list[_Finding]]:
    """The findings that count, those to be told in one line together; `depth` unions are settled."""
    groups: dict[object, list[_Finding]] = {}
    for number, finding in enumerate(findings):
        unions = finding.place.unions[depth:]
        groups.setdefault(unions[0][0] if unions else number, []).append(finding)
    for group in groups.values():
        if group[0].place.unions[depth:]:
            yield from _best_member(group, depth)
        else:
            yield group


def _best_member(findings: list[_Finding], depth: int) -> Iterator[list[_Finding]]:
    """Of a plain union's findings those of the member that was meant, or all when that cannot be told."""
    members: dict[str | int, list[_Finding]] = {}
    for finding in findings:
        members.setdefault(finding.place.unions[depth][1], []).append(finding)
    here = findings[0].place.unions[depth][2]
    fitting = [
        member
        for member in members.values()
        if not any(finding.is_of_another_kind and finding.place.path == here for finding in member)
    ]
    inside = [member for member in fitting if any(finding.place.path != here for finding in member)]
    if inside:
        yield from _settled(min(inside, key=len), depth + 1)
    else:
        spoken = [finding for member in fitting for finding in member if finding.requirement is None]
        yield spoken[:1] or findings


def _worded(findings: list[_Finding]) -> tuple[KeyPath, object, str]:
    """Path, value and message for one finding, or for several of a union's members."""
    finding = findings[0]
    path, value = finding.place.path, finding.value
    if finding.type == "missing":
        return path, None, "missing"
    if finding.type == "extra_forbidden":
        allowed = _keys(finding.place.owner)
        choices = f" Allowed: [{listed(allowed, _LISTED)}].{did_you_mean(str(path[-1]), allowed)}"
        return path, value, f"unknown key {described(path[-1])}.{choices if allowed else ''}"
    if finding.type in ("union_tag_invalid", "union_tag_not_found"):
        return _tag_worded(finding)
    requirements = dict.fromkeys(filter(None, (each.requirement for each in findings)))
    if not requirements:
        return path, value, _spoken(finding)
    if "a number" in requirements:
        requirements.pop("a whole number", None)
    required = " or ".join(requirements)
    if all(each.is_of_another_kind for each in findings):
        quotes = "; write it in quotes to make it text" if "text" in requirements and _is_bare(value) else ""
        return path, value, f"expected {required}, got {_named(value)}{quotes}"
    names = [name for each in findings if each.type in _CHOICES for name in each.choices]
    near = did_you_mean(value, names) if isinstance(value, str) else ""
    if len(findings) == 1 and names:
        return path, value, f"{described(value)} is not allowed. Allowed: [{listed(names, _LISTED)}].{near}"
    return path, value, f"{described(value)} is not allowed; it must be {required}{'.' if near else ''}{near}"


def _tag_worded(finding: _Finding) -> tuple[KeyPath, object, str]:
    """A discriminated union whose tag is missing or unknown."""
    name = str(finding.context["discriminator"]).strip("'")
    tags = [str(tag) for tag in _tags(finding.place.kind, name)]
    allowed = f"Allowed: [{listed(tags, _LISTED)}]."
    path = (*finding.place.path, name)
    if finding.type == "union_tag_not_found":
        return path, None, f"missing. {allowed}"
    value = finding.value.get(name) if isinstance(finding.value, Mapping) else finding.value
    noun = {"op": "operation"}.get(name, name)
    article = "an" if noun[0] in "aeiou" else "a"
    near = did_you_mean(value, tags) if isinstance(value, str) else ""
    return path, value, f"{described(value)} is not {article} {noun}. {allowed}{near}"


def _spoken(finding: _Finding) -> str:
    """The message of a validator as it is; what is left of pydantic's own, with the value."""
    if finding.type in ("value_error", "assertion_error") and "error" in finding.context:
        return str(finding.context["error"])
    own = finding.message.removeprefix("Input should ")
    if own == finding.message:
        return own
    return f"{described(finding.value)} is not allowed; it should {own}"


def _bound(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _is_bare(value: object) -> bool:
    """Whether the value is one that quotes in the file would have kept a text."""
    return isinstance(value, int | float)


def _named(value: object) -> str:
    if isinstance(value, str):
        return f"text {described(value)}"
    return f"the number {described(value)}" if type(value) in (int, float) else described(value)


def _locate(model: type[BaseModel], data: object, loc: tuple[str | int, ...], problem: str) -> _Place:
    """Walks `loc` through the model's annotations and the data side by side."""
    kind, discriminator = _bare(model, None)
    place = _Place((), data, kind, discriminator, None, [])
    for position, element in enumerate(loc):
        members = _members(place.kind)
        if (
            element == "[key]"
            and position == len(loc) - 1
            and element not in (place.value if isinstance(place.value, dict) else ())
        ):
            # The finding is about the key above, not about what is under it.
            place.value = _ABSENT
            return place
        if members and isinstance(place.discriminator, str):
            kind, discriminator = _tags(place.kind, place.discriminator).get(element), None
        elif members:
            place.unions.append((loc[:position], element, place.path))
            kind, discriminator = _member(members, str(element), place.value), None
        else:
            last = position == len(loc) - 1 and problem in ("missing", "extra_forbidden")
            place.owner = place.kind if _is_model(place.kind) else None
            kind, discriminator, known = _child(place.kind, element)
            _step(place, element, known or last, last)
        place.kind, place.discriminator = _bare(kind, discriminator)
    return place


def _step(place: _Place, element: str | int, known: bool, last: bool) -> None:
    """Moves one key down; names that pydantic made up are passed over."""
    data = place.value
    is_item = isinstance(data, list) and isinstance(element, int) and element < len(data)
    if is_item or (isinstance(data, dict) and element in data):
        place.path, place.value = (*place.path, element), data[element]
    elif known:
        # A key that is absent has a path; one inside what a validator made of a scalar has none.
        if isinstance(data, dict) or last:
            place.path = (*place.path, element)
        place.value = _ABSENT


def _is_model(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _keys(model: type[BaseModel] | None) -> list[str]:
    """The keys that a model knows, as they are written."""
    return [_alias(name, field) for name, field in model.model_fields.items()] if model else []


def _alias(name: str, field: Any) -> str:
    return field.validation_alias if isinstance(field.validation_alias, str) else name


def _bare(kind: Any, discriminator: object) -> tuple[Any, object]:
    """An annotation without aliases, Annotated, Optional and RootModel; and its union's discriminator."""
    while True:
        if isinstance(kind, TypeAliasType):
            kind = kind.__value__
        elif get_origin(kind) is Annotated:
            found = [getattr(extra, "discriminator", None) for extra in kind.__metadata__]
            discriminator = next(filter(None, found), discriminator)
            kind = kind.__origin__
        elif isinstance(kind, type) and issubclass(kind, RootModel):
            field = kind.model_fields["root"]
            kind, discriminator = field.annotation, field.discriminator
        elif get_origin(kind) in (Union, types.UnionType) and len(_members(kind)) == 1:
            kind = _members(kind)[0]
        else:
            return kind, discriminator


def _members(kind: Any) -> list[Any]:
    """The members of a union but None; empty for anything else."""
    if get_origin(kind) not in (Union, types.UnionType):
        return []
    return [member for member in get_args(kind) if member is not types.NoneType]


def _tags(kind: Any, discriminator: str) -> dict[object, Any]:
    """The members of a discriminated union by tag."""
    tags: dict[object, Any] = {}
    for member in _members(kind):
        bare, _ = _bare(member, None)
        if _is_model(bare):
            fields = {_alias(name, field): field for name, field in bare.model_fields.items()}
            if discriminator in fields:
                tags |= dict.fromkeys(get_args(_bare(fields[discriminator].annotation, None)[0]), member)
        else:
            tags |= _tags(bare, discriminator)
    return tags


def _member(members: list[Any], label: str, data: object) -> Any:
    """The member of a plain union that pydantic calls `label`: the one that shares most words with it.

    The label may be cut short; then a mapping is taken to be meant for a model.
    """
    words = set(re.findall(r"\w+", label))

    def likeness(member: Any) -> tuple[int, bool]:
        bare, _ = _bare(member, None)
        return len(words.intersection(re.findall(r"\w+", str(bare)))), isinstance(data, dict) == _is_model(bare)

    return max(members, key=likeness)


def _child(kind: Any, element: str | int) -> tuple[Any, object, bool]:
    """Annotation and discriminator of what is under a key, and whether the annotation knows that key."""
    if _is_model(kind):
        # Resolves annotations that name classes defined further down.
        kind.model_rebuild(raise_errors=False)
        for name, field in kind.model_fields.items():
            if element in (name, _alias(name, field)):
                return field.annotation, field.discriminator, True
        return None, None, False
    origin, arguments = get_origin(kind) or kind, get_args(kind)
    if not isinstance(origin, type) or issubclass(origin, str) or not issubclass(origin, Collection):
        return None, None, False
    if issubclass(origin, Mapping):
        return arguments[-1] if arguments else None, None, True
    if issubclass(origin, tuple) and isinstance(element, int) and arguments[1:] and arguments[1] is not Ellipsis:
        return arguments[element] if element < len(arguments) else None, None, True
    return arguments[0] if arguments else None, None, True
