"""What a proposed spec does with each column of a profile, and why."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field

from treadle.engine.job import NUMBERS_ARE_CLASSES_UP_TO, Data
from treadle.engine.profile.describe import task_of
from treadle.engine.profile.document import ColumnProfile, Profile
from treadle.engine.profile.findings import FEW_KNOWN, NEAR_UNIQUE
from treadle.engine.profile.texts import DATE_FORMATS
from treadle.jobs.yaml_text import scalar

ONE_HOT_UP_TO = 50
"""Levels of a text column that get a feature each; more become positions."""
REPEATS = 0.5
"""Of a text column, a larger share of distinct values is a name or a note, and nothing to learn from."""
LARGEST = 1e38
"""Beyond, a number is no float32."""
DAY_PARTS, TIME_PARTS = ("year", "month", "day", "weekday"), ("year", "month", "day", "weekday", "hour")
OWN_NAMES = frozenset({"id", "split", "bias", "class"})
"""Features that may not be called so, in any case."""
_NAMES_ROWS = re.compile(r"(^|[_\W])(id|key|no|nr|num|number|code|row|index|uuid|guid)([_\W]|$)|[a-z](Id|ID|Key|No)$")


@dataclass(frozen=True)
class Feature:
    """An operation of `features`: its columns, what follows them in its mapping, and why it is there."""

    op: str
    columns: list[str]
    rest: str = ""
    reasons: tuple[str, ...] = ()


@dataclass
class Draft:
    """A proposal while it is made; `make_draft` fills it. Columns are named as in the input, features as renamed."""

    profile: Profile
    data: Data
    target: str | None = None
    """As it is called after `tables`."""
    target_reason: str = ""
    task: str | None = None
    positive: tuple[str | int | float | bool, str] | None = None
    id: str | None = None
    filtered: list[tuple[str, str]] = field(default_factory=list)
    """Conditions, with reasons."""
    cast: dict[str, tuple[str, tuple[str, ...], str]] = field(default_factory=dict)
    """Column -> type, formats, reason."""
    derived: list[tuple[str, str, str]] = field(default_factory=list)
    """Name, expression, reason."""
    dropped: dict[str, str] = field(default_factory=dict)
    """Column -> reason."""
    renamed: dict[str, str] = field(default_factory=dict)
    suggested: list[tuple[str, str]] = field(default_factory=list)
    """Operations that lose values, and what they are for."""
    made_null: set[str] = field(default_factory=set)
    """Columns that have nulls after `tables` only."""
    no_models: str = ""

    @property
    def models(self) -> bool:
        return self.task is not None

    def casts(self) -> dict[tuple[str, tuple[str, ...]], list[tuple[str, str]]]:
        """Casts of one type and formats together: the columns with the reasons."""
        together: dict[tuple[str, tuple[str, ...]], list[tuple[str, str]]] = {}
        for name, (kind, formats, reason) in self.cast.items():
            together.setdefault((kind, formats), []).append((name, reason))
        return together

    def kind(self, name: str) -> str:
        """Of a column after `tables`."""
        return self.cast[name][0] if name in self.cast else self.profile.column(name).kind

    def is_number(self, name: str) -> bool:
        return self.kind(name) in ("int", "float", "bool")

    def is_time(self, name: str) -> bool:
        return self.kind(name) in ("timestamp", "date")

    def derived_names(self) -> set[str]:
        return {name for name, _, _ in self.derived}

    def has_nulls(self, name: str) -> bool:
        return self.profile.column(name).nulls > 0 or name in self.made_null

    def inputs(self) -> list[ColumnProfile]:
        """The columns that features are made of."""
        apart = {self.id, self.profile.target.column if self.profile.target else None}
        return [c for c in self.profile.columns if c.name not in self.dropped and c.name not in apart]

    def features(self) -> list[Feature]:
        """Operations that make numbers without nulls of all inputs."""
        called = {column.name: self.renamed.get(column.name, column.name) for column in self.inputs()}
        found: list[Feature] = []
        numbers = [name for name in called if self.is_number(name) and self.has_nulls(name)]
        if numbers:
            reason = "the linear model takes no nulls; `indicator` keeps the knowledge of where they were"
            found.append(Feature("impute", [called[n] for n in numbers], ", indicator: true", (reason,)))
        found += self._of_times(called)
        return found + self._of_texts(called)

    def _of_times(self, called: dict[str, str]) -> list[Feature]:
        found: list[Feature] = []
        times = [name for name in called if self.is_time(name)]
        for parts in (DAY_PARTS, TIME_PARTS):
            names = [name for name in times if (parts is DAY_PARTS) == self._whole_days(name)]
            if names:
                rest = f", parts: [{', '.join(parts)}]"
                found.append(Feature("date_parts", [called[n] for n in names], rest))
                nulls = [f"{called[name]}_{part}" for name in names if self.has_nulls(name) for part in parts]
                if nulls:
                    found.append(Feature("impute", nulls))
        return found

    def _whole_days(self, name: str) -> bool:
        column = self.profile.column(name)
        if column.time is not None:
            return column.time.midnights == column.known
        return self.kind(name) == "date" or (column.text is not None and column.text.longest == 10)

    def _of_texts(self, called: dict[str, str]) -> list[Feature]:
        found: list[Feature] = []
        texts = [name for name in called if self.kind(name) == "text"]
        alike = self.profile.found("case_levels")
        for op in ("one_hot", "ordinal"):
            for nulls in (False, True):
                names = [
                    name
                    for name in texts
                    if self.has_nulls(name) == nulls and (op == "one_hot") == self._few_levels(name, name in alike)
                ]
                if names:
                    rest = ', missing: "?"' if nulls else ""
                    rest += ", unseen: other" if op == "ordinal" else ""
                    reasons = [
                        f"'{name}' has {self.profile.column(name).distinct:,} levels"
                        + (", of which some differ in case or spaces only" if name in alike else "")
                        for name in names
                        if op == "ordinal"
                    ]
                    found.append(Feature(op, [called[n] for n in names], rest, tuple(reasons)))
        return found

    def _few_levels(self, name: str, alike: bool) -> bool:
        column = self.profile.column(name)
        return column.exact and column.distinct <= ONE_HOT_UP_TO and not alike


def sql_name(name: str) -> str:
    """A column in an expression."""
    return '"' + name.replace('"', '""') + '"'


def make_draft(profile: Profile, data: Data) -> Draft:
    """Decides on every column."""
    draft = Draft(profile, data)
    target = profile.target.column if profile.target else None
    draft.id = data.id or _id(profile, target)
    for column in profile.columns:
        if column.name not in (target, draft.id):
            _decide(draft, column)
    if target is not None:
        _decide_target(draft, profile.column(target))
    else:
        draft.no_models = "models need a column to predict: `treadle profile ... --target COLUMN` proposes them, too"
    if draft.models and not draft.inputs():
        draft.task, draft.no_models = None, "no column is left to make features of, so that there are no models"
    if draft.models:
        _rename(draft, target or "")
    elif len(draft.dropped) == len(profile.columns):
        draft.dropped.clear()  # a table keeps a column at least
    return draft


def _id(profile: Profile, target: str | None) -> str | None:
    """The first column that names the rows, of those that are called so or count them, or are text."""
    for name in profile.found("id"):
        dated = name in profile.found("dates_as_text")
        if name != target and not dated and _is_name(profile.column(name)):
            return name
    return None


def _is_name(column: ColumnProfile) -> bool:
    """Whether a column without repetitions is a name of the rows, and not a measure that happens not to repeat."""
    number = column.number
    if column.kind == "text" or _NAMES_ROWS.search(column.name):
        return True
    if number is None or number.minimum is None or number.maximum is None:
        return False
    return number.maximum - number.minimum + 1 == column.rows


def _decide(draft: Draft, column: ColumnProfile) -> None:
    """Drops, casts or keeps a column that is neither target nor id."""
    name, profile = column.name, draft.profile
    finding = profile.found("constant", "equal", "few_known").get(name)
    leak = profile.found("leakage").get(name)
    if column.known == 0:
        draft.dropped[name] = f"'{name}' is null in all rows"
    elif finding is not None:
        draft.dropped[name] = finding.message
    elif leak is not None:
        draft.dropped[name] = f"{leak.message} Put it back if a prediction may know it."
    elif profile.target is not None and name in profile.found("id") and _is_name(column):
        draft.dropped[name] = f"'{name}' names rows; there is nothing to learn from it"
    elif column.kind == "text":
        _decide_text(draft, column)
    elif profile.target is not None and _beyond(column):
        draft.derived.append(
            (
                name,
                f"case when abs({sql_name(name)}) < {LARGEST:.0e} then {sql_name(name)} end",
                f"'{name}' has infinite numbers, or some beyond float32, which no model takes: made null",
            )
        )
        draft.made_null.add(name)


def _beyond(column: ColumnProfile) -> bool:
    """Whether a number is infinite as float32."""
    number = column.number
    if number is None:
        return False
    return number.infinities > 0 or any(e is not None and abs(e) >= LARGEST for e in (number.minimum, number.maximum))


def _decide_text(draft: Draft, column: ColumnProfile) -> None:
    name, profile = column.name, draft.profile
    cast = cast_of(profile, name)
    if cast is not None:
        draft.cast[name] = cast
        return
    mixed = profile.found("mixed_numbers", "mixed_dates").get(name)
    if mixed is not None:
        kind = "double" if mixed.kind == "mixed_numbers" else "timestamp"
        sql = f"try_cast({sql_name(name)} as {kind})"
        draft.suggested.append((f"{{op: derive, name: {scalar(name)}, sql: {scalar(sql)}}}", mixed.message))
    often = REPEATS if column.distinct > ONE_HOT_UP_TO else NEAR_UNIQUE
    if profile.target is not None and column.known >= FEW_KNOWN and column.distinct > often * column.known:
        draft.dropped[name] = (
            f"'{name}' has {column.distinct:,} texts in {column.known:,} rows, too few of which repeat"
        )


def cast_of(profile: Profile, name: str) -> tuple[str, tuple[str, ...], str] | None:
    """Type, formats and reason of a cast that loses no value of a text column; None when there is none."""
    column = profile.column(name)
    finding = profile.found("numbers_as_text", "dates_as_text", "bools_as_text").get(name)
    if finding is None or column.text is None:
        return None
    forms = column.text.forms
    if finding.kind == "bools_as_text":
        return "bool", (), finding.message
    if finding.kind == "numbers_as_text":
        return "int" if forms.get("int") == column.known else "float", (), finding.message
    if forms.get("timestamp") == column.known:
        return "timestamp", (), finding.message
    return "timestamp", (next(form for form in DATE_FORMATS if forms.get(form) == column.known),), finding.message


def _decide_target(draft: Draft, column: ColumnProfile) -> None:
    """The task, the positive class, and what `tables` must do that the target can be predicted."""
    name, profile = column.name, draft.profile
    draft.target, draft.task = name, task_of(column)
    if column.kind == "text" and (cast := cast_of(profile, name)) is not None and cast[0] in ("int", "float"):
        draft.cast[name] = cast
        whole = cast[0] == "int" and column.distinct <= NUMBERS_ARE_CLASSES_UP_TO
        draft.task = "classification" if whole else "regression"
    elif column.kind == "float" and 2 <= column.distinct <= NUMBERS_ARE_CLASSES_UP_TO and _whole(column):
        draft.cast[name] = "int", (), f"'{name}' has {column.distinct} whole numbers, which are taken for classes"
        draft.task = "classification"
    elif column.kind == "text" and name in profile.found("case_levels"):
        draft.derived.append((name, f"lower(trim({sql_name(name)}))", profile.found("case_levels")[name].message))
    elif draft.task == "regression" and column.number is not None and column.number.infinities:
        draft.filtered.append(
            (f"abs({sql_name(name)}) < {LARGEST:.0e}", f"the target '{name}' is infinite in some rows")
        )
    if draft.task is None:
        values = "1 value" if column.distinct == 1 else f"{column.distinct:,} values"
        draft.target, draft.no_models = None, f"'{name}' cannot be predicted: it is {column.kind}, and has {values}"
        return
    if column.nulls:
        draft.target_reason = f"null in {column.nulls:,} rows, which are left out"
    plain = name not in draft.cast and not draft.derived_names() & {name}
    if draft.task == "classification" and column.distinct == 2 and plain:
        rarer = min(column.top, key=lambda top: top.count)
        draft.positive = rarer.value, f"the rarer of two: {rarer.count:,} of {column.known:,} rows"


def _whole(column: ColumnProfile) -> bool:
    shown = [top.value for top in column.top]
    return len(shown) == column.distinct and all(isinstance(v, float) and v.is_integer() for v in shown)


def _rename(draft: Draft, target: str) -> None:
    """New names for features that would be called as a job's tables call their own columns, as what other features are
    made into, or alike but for case."""
    taken = {column.name.casefold() for column in draft.profile.columns} | OWN_NAMES
    if target.casefold() in ("id", "split"):
        draft.renamed[target] = draft.target = _free(f"{target}_target", taken)
    seen = OWN_NAMES | {(draft.target or "").casefold()}
    inputs = [column.name for column in draft.inputs()]
    made = {f"{name}_missing".casefold() for name in inputs if draft.is_number(name) and draft.has_nulls(name)}
    made |= {f"{name}_{part}".casefold() for name in inputs if draft.is_time(name) for part in TIME_PARTS}
    levels = tuple(f"{name}=".casefold() for name in inputs if draft.kind(name) == "text")
    for name in inputs:
        folded = name.casefold()
        if folded in seen | made or folded.startswith(levels):
            draft.renamed[name] = _free(name.replace("=", "_"), taken)
        seen |= {folded}


def _free(name: str, taken: set[str]) -> str:
    new = next(free for number in itertools.count(1) if (free := f"{name}_{number}").casefold() not in taken)
    taken.add(new.casefold())
    return new
