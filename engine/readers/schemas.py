"""One schema for all files of an input, or all that keeps them from having one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from treadle.engine.backend import ARROW_TYPES
from treadle.engine.readers.options import given_kinds
from treadle.errors import DataError, column_not_found, did_you_mean

NULL = "null"
"""Kind of a column without any value."""
SHOWN = 20
"""Conflicts that a message names."""
Columns = Mapping[str, Mapping[str, str]]
"""Of one file: column -> kind -> where it has that kind. A kind that the engine has not is a type's description."""


@dataclass(frozen=True)
class Rules:
    """What differs between formats."""

    lacking_is_null: bool = False
    """A file may lack columns of others."""
    mixed_is_text: bool = False
    """Values of several kinds are text, as all values of the format are."""
    times_are_text: bool = False
    """Times are texts of a certain form: with other texts they make text."""
    nested_as_text: bool = False
    """Nested values have a text form, which a given type `text` asks for."""
    types_may_add: bool = False
    """A given type may be of a column that no sample has."""


@dataclass(frozen=True)
class Sampled:
    """What the head of one text file tells."""

    columns: Columns
    has_rows: bool


@dataclass(frozen=True)
class Unified:
    """The schema of an input."""

    kinds: dict[str, str]
    """Column -> kind, in the order of the first file, then of those that add columns."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Columns that the engine does not take -> their types."""
    notes: tuple[str, ...] = ()
    """What a user should know about it."""


def unify(files: Mapping[str, Columns], types: Mapping[str, str], rules: Rules) -> Unified:
    """The kinds of all columns: int and float together make float, null and another kind the other.

    Types that are given decide.

    Raises
    ------
    RequestError
        A given type for a column that is not there.
    DataError
        The files differ; names every conflict, with the columns, both kinds and where they are found.
    """
    given = given_kinds(types)
    found: dict[str, dict[str, str]] = {}
    for columns in files.values():
        for name, kinds in columns.items():
            for kind, place in kinds.items():
                found.setdefault(name, {}).setdefault(kind, place)
    for name in given:
        if name not in found:
            if not rules.types_may_add:
                raise column_not_found(name, "data.types", found)
            found[name] = {}
    lacking = [] if rules.lacking_is_null else _lacking(files, list(found))
    conflicts = []
    unified = Unified({})
    notes = []
    for name, kinds in found.items():
        nested = [kind for kind in kinds if kind not in ARROW_TYPES and kind != NULL]
        plain = [kind for kind in kinds if kind in ARROW_TYPES]
        if name in given and (not nested or (rules.nested_as_text and given[name] == "text")):
            unified.kinds[name] = given[name]
        elif name in given:
            conflicts.append(f"column '{name}' is {_places(kinds, nested[:1])}, which is no {given[name]} (data.types)")
        elif nested and not plain:
            unified.left_out[name] = " or ".join(nested)
        elif nested or (_differ_in_kind(plain) and not _is_text(plain, rules)):
            # Two of three kinds tell enough; int and float are no conflict.
            apart = [*plain[:1], *nested[:1]] if nested else _apart(plain)
            conflicts.append(f"column '{name}' is {_places(kinds, apart)}")
        elif _differ_in_kind(plain):
            unified.kinds[name] = "text"
            notes.append(f"column '{name}' is read as text: it is {_places(kinds, _apart(plain))}")
        else:
            unified.kinds[name] = "float" if len(plain) > 1 else next(iter(plain), "text")
    if lacking or conflicts:
        raise _conflicting(lacking, conflicts)
    if not unified.kinds:
        raise DataError(
            f"The input has no column that Treadle takes: {described(unified.left_out) or 'it has none at all'}."
        )
    return Unified(unified.kinds, unified.left_out, tuple(notes))


def described(left_out: Mapping[str, str]) -> str:
    """Columns with their types, for a message."""
    return ", ".join(f"{name} ({type_})" for name, type_ in left_out.items())


def _lacking(files: Mapping[str, Columns], names: Sequence[str]) -> list[str]:
    holders = {name: path for path, columns in reversed(list(files.items())) for name in columns}
    common = set(names).intersection(*files.values())
    conflicts = []
    for path, columns in files.items():
        for name in names:
            if name not in columns and name in holders:
                near = did_you_mean(name, [own for own in columns if own not in common])
                conflicts.append(f"'{path}' has no column '{name}', which '{holders[name]}' has{near and '.' + near}")
    return conflicts


def _differ_in_kind(plain: Sequence[str]) -> bool:
    return len(plain) > 1 and set(plain) != {"int", "float"}


def _is_text(plain: Sequence[str], rules: Rules) -> bool:
    return rules.mixed_is_text or (rules.times_are_text and set(plain) == {"timestamp", "text"})


def _apart(plain: Sequence[str]) -> list[str]:
    """Two kinds that do not go together."""
    first = plain[0]
    numbers = ("int", "float")
    return [first, next(kind for kind in plain[1:] if not (first in numbers and kind in numbers))]


def _places(kinds: Mapping[str, str], wanted: Sequence[str]) -> str:
    return " and ".join(f"{kind} in {kinds[kind]}" for kind in wanted)


def _conflicting(lacking: Sequence[str], types: Sequence[str]) -> DataError:
    subject = "The input's files differ" if lacking else "The input's types differ"
    remedy = "Write the files alike" + (", or give a column its type in data.types." if types else ".")
    conflicts = [*lacking, *types]
    if len(conflicts) == 1:
        end = "" if conflicts[0].endswith("?") else "."
        return DataError(f"{subject}: {conflicts[0]}{end} {remedy}")
    more = [f"  and {len(conflicts) - SHOWN} more"] if len(conflicts) > SHOWN else []
    return DataError("\n".join([f"{subject}:", *(f"  {conflict}" for conflict in conflicts[:SHOWN]), *more, remedy]))
