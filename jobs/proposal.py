"""A spec to start from, proposed from a profile: every line that is not evident has its reason as a comment.

The text is a list of sections, each a function from the `Draft` to lines of YAML; another section of a spec is another
function in `SECTIONS`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from treadle.engine.job import Data
from treadle.engine.profile.document import Profile
from treadle.jobs.draft import Draft, make_draft
from treadle.jobs.example_data import SCHEME
from treadle.jobs.yaml_text import flow_list, flow_map, scalar

Lines = list[str]
INDENT = 6
"""Of the lines of a long list inside an operation."""


def propose(profile: Profile, data: Data, folder: Path, models: Sequence[str] | None = None) -> str:
    """The YAML of a spec that `treadle check` accepts as it stands.

    `data` is how the input was read; `folder` is where the spec will lie, or the working folder. With a target that can
    be predicted it trains models, else it is an ETL job. `models` are lines in place of those that say which.
    """
    draft = make_draft(profile, data)
    lines = [
        f"# Proposed by `treadle profile` from {profile.rows:,} rows of {len(profile.columns)} columns: read it before "
        "it is run.",
        "apiVersion: treadle/v1",
        f"name: {scalar(_name(profile))}",
    ]
    for section in SECTIONS:
        lines += section(draft, folder)
    lines += _models(draft) if models is None else models
    return "\n".join(lines) + "\n"


def _name(profile: Profile) -> str:
    """From the file or folder, without its endings."""
    path = profile.path if isinstance(profile.path, str) else profile.path[0]
    parts = [part for part in re.split(r"[/\\]+", path.removeprefix(SCHEME)) if not set(part) & set("*?[")]
    stem = next((part for part in reversed(parts) if part), "").split(".")[0]
    return re.sub(r"[^A-Za-z0-9]+", "-", stem).strip("-")[:60] or "data"


def _path(path: str, folder: Path) -> str:
    """As it was given where the spec finds it so, else absolute."""
    if "://" in path or os.path.isabs(path) or folder.resolve() == Path.cwd():
        return path
    return os.path.abspath(path)


def _data(draft: Draft, folder: Path) -> Lines:
    profile, data = draft.profile, draft.data
    given = [profile.path] if isinstance(profile.path, str) else profile.path
    paths = [_path(path, folder) for path in given]
    lines = ["data:", f"  path: {scalar(paths[0]) if len(paths) == 1 else flow_list(paths)}"]
    if not paths[0].startswith(SCHEME):
        lines.append(f"  format: {profile.format}")
    own = {"path", "format", "target", "id", "positive_class", "bad_rows"}
    lines += [
        f"  {key}: {_value(getattr(data, key))}" for key in Data.model_fields if key in data.model_fields_set - own
    ]
    if profile.quarantined:
        lines.append(f"  bad_rows: {{limit: {profile.quarantined}}}  # so many are broken, and go to `quarantine`")
    if draft.target is not None:
        lines.append(f"  target: {scalar(draft.target)}{_why(draft.target_reason)}")
    if draft.positive is not None:
        value, reason = draft.positive
        lines.append(f"  positive_class: {scalar(value)}{_why(reason)}")
    if draft.id is not None:
        column = profile.column(draft.id)
        reason = {
            "yes": "no value is null or occurs twice",
            "likely": "no value is null, or occurs twice as far as a sample tells",
            "no": "",
        }[column.unique]
        lines.append(f"  id: {scalar(draft.id)}{_why(reason)}")
    return lines


def _contract(draft: Draft, _: Path) -> Lines:
    """What the rows have in common, of the columns that are kept; a break warns, but of the id."""
    items = []
    for column in draft.profile.columns:
        name = scalar(column.name)
        if column.name in draft.dropped or column.name in draft.made_null:
            continue
        if column.name == draft.id:
            otherwise = "" if column.unique == "yes" else ", otherwise: warn"
            items.append(f"{{expect: unique, columns: [{name}]{otherwise}}}")
        elif not column.nulls and column.rows:
            items.append(f"{{expect: not_null, column: {name}, otherwise: warn}}")
        if column.kind == "text" and column.exact and not column.top_error and 0 < column.distinct == len(column.top):
            allowed = flow_list(sorted(str(top.value) for top in column.top), INDENT)
            items.append(f"{{expect: values, column: {name}, allowed: {allowed}, otherwise: warn}}")
        number = column.number
        if number is not None and number.minimum is not None and not number.infinities and column.name != draft.id:
            ends = f"min: {scalar(number.minimum)}, max: {scalar(number.maximum)}"
            items.append(f"{{expect: range, column: {name}, {ends}, otherwise: warn}}")
    head = "contract:  # what these rows have in common; loosen what is chance, and let what must hold fail"
    return [head, *(f"  - {item}" for item in items)] if items else []


def _tables(draft: Draft, _: Path) -> Lines:
    items: list[tuple[list[str], str]] = [
        ([reason], f"{{op: filter, sql: {scalar(sql)}}}") for sql, reason in draft.filtered
    ]
    for (kind, formats), columns in draft.casts().items():
        given = f", formats: {flow_list(formats)}" if formats else ""
        mapping = flow_map({name: kind for name, _ in columns}, INDENT)
        items.append(([_reason(columns)], f"{{op: cast, columns: {mapping}{given}}}"))
    for name, sql, reason in draft.derived:
        items.append(([reason], f"{{op: derive, name: {scalar(name)}, sql: {scalar(sql)}}}"))
    if draft.dropped:
        columns_ = flow_list(draft.dropped, INDENT)
        items.append((list(draft.dropped.values()), f"{{op: drop, columns: {columns_}}}"))
    if draft.renamed:
        reason = "the tables that a job writes use these names themselves, or take them for another column's"
        items.append(([reason], f"{{op: rename, columns: {flow_map(draft.renamed, INDENT)}}}"))
    lines = ["tables:"] if items else []
    for reasons, operation in items:
        lines += [*(f"  # {_comment(reason)}" for reason in reasons), f"  - {operation}"]
    if draft.suggested:
        lines += [] if items else ["# tables:"]
        lines.append("  # to consider; what is not of the type becomes null:")
    for operation, reason in draft.suggested:
        lines += [f"  # {_comment(reason)}", f"  # - {operation}"]
    return lines


def _features(draft: Draft, _: Path) -> Lines:
    if not draft.models:
        return []
    lines: Lines = ["features:"]
    for feature in draft.features():
        lines += [f"  # {_comment(reason)}" for reason in feature.reasons]
        lines.append(f"  - {{op: {feature.op}, columns: {flow_list(feature.columns, INDENT)}{feature.rest}}}")
    return [*lines, "  # for the linear model; trees do not mind", "  - {op: scale, columns: numeric}"]


def _split(draft: Draft, _: Path) -> Lines:
    if not draft.models:
        return []
    lines = []
    times = [c.name for c in draft.inputs() if draft.is_time(c.name) and not draft.has_nulls(c.name)]
    if times:
        column = scalar(draft.renamed.get(times[0], times[0]))
        lines.append(f"# rows are in time: where the future is to be predicted, {{kind: time, column: {column}}}")
    kind = "stratified" if draft.task == "classification" else "random"
    return [*lines, f"split: {{kind: {kind}, test_size: 0.25}}"]


def _models(draft: Draft) -> Lines:
    if not draft.models:
        return [f"# {_comment(draft.no_models)}"]
    linear = "logistic_regression" if draft.task == "classification" else "ridge"
    return ["models:", "  - {name: xgboost, params: {n_estimators: 200, max_depth: 6}}", f"  - {linear}"]


def _reason(columns: Sequence[tuple[str, str]]) -> str:
    """One for a cast of several columns, whose reasons differ by their names only."""
    (name, reason), *others = columns
    return reason.replace(f"'{name}' is text, and all its", "texts whose") if others else reason


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return flow_map(value)
    return flow_list(value) if isinstance(value, tuple) else scalar(value)


def _comment(text: str) -> str:
    """One line that YAML takes."""
    return "".join(char if char.isprintable() else "?" for char in text)


def _why(reason: str) -> str:
    return f"  # {_comment(reason)}" if reason else ""


SECTIONS: Sequence[Callable[[Draft, Path], Lines]] = (_data, _contract, _tables, _features, _split)
"""In the order of the spec; the models follow."""
