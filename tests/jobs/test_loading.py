"""Specs as models: every kind of mistake by its words and its line, all at once, and nothing but SpecError."""

from __future__ import annotations

import copy
import datetime
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import Field

from tests.jobs.demo_spec import (
    SCALARS,
    VALID,
    Anything,
    Filter,
    Model,
    Part,
    Spec,
    Split,
    assert_read_or_refused,
    nested,
    problems_of,
)
from treadle.errors import RequestError
from treadle.jobs.loading import Problem, SpecError, load

# Line, what it becomes, the lines of the message.
MISTAKES = [
    (2, "name: Job!", ["line 2, name: 'Job!' is not allowed; it must be text that matches ^[a-z-]+$"]),
    (2, "name: too-long-a-name", ["line 2, name: 'too-long-a-name' is not allowed; it must be of length 8 or less"]),
    (2, "name: 2025", ["line 2, name: expected text, got the number 2025; write it in quotes to make it text"]),
    (2, "nmae: job", [
        "line 2, name: missing",
        "line 2, nmae: unknown key 'nmae'. Allowed: [name, tables, first, models, best, split, device, born, when,"
        " folds, seeds, bounds, more]. Did you mean 'name'?",
    ]),
    (4, "  - op: filtre", ["line 4, tables.0.op: 'filtre' is not an operation. Allowed: [filter, rename, alias, join]."
                           " Did you mean 'filter'?"]),
    (4, "  - pp: filter", ["line 4, tables.0.op: missing. Allowed: [filter, rename, alias, join]."]),
    (5, "    sql: [age]", ["line 5, tables.0.sql: expected text, got a list"]),
    (5, "    filter: 3", ["line 4, tables.0.sql: missing",
                          "line 6, tables.0.filter: the key 'filter' is given twice, on lines 5 and 6"]),
    (6, "    filter: many", ["line 6, tables.0.filter: expected a whole number, got text 'many'"]),
    (6, "    flter: 3", ["line 6, tables.0.flter: unknown key 'flter'. Allowed: [op, sql, filter]."
                         " Did you mean 'filter'?"]),
    (8, "    columns: {old: null}", ["line 8, tables.1.columns.old: expected text, got null"]),
    (8, "    columns: x", ["line 8, tables.1.columns: expected a mapping, got text 'x'"]),
    (9, "  - {op: join, with: {pth: x}, how: lfet}", [
        "line 9, tables.2.with.path: missing",
        "line 9, tables.2.with.pth: unknown key 'pth'. Allowed: [path]. Did you mean 'path'?",
        "line 9, tables.2.how: 'lfet' is not allowed. Allowed: [left, inner]. Did you mean 'left'?",
    ]),
    (9, "  - join", ["line 9, tables.2: expected a mapping, got text 'join'"]),
    (9, "  - {op: [join]}", ["line 9, tables.2.op: a list is not an operation."
                              " Allowed: [filter, rename, alias, join]."]),
    (11, "  op: 3", ["line 11, first.op: 3 is not an operation. Allowed: [filter, rename, alias, join]."]),
    (14, "  - 5", ["line 14, models.0: expected text or a mapping, got the number 5; write it in quotes to make it"
                   " text"]),
    (15, "  - nam: tree", ["line 15, models.1.name: missing", "line 15, models.1.nam: unknown key 'nam'."
                           " Allowed: [name, params]. Did you mean 'name'?"]),
    (15, "  - name: forest", ["line 15, models.1.name: 'forest' is not a model here"]),
    (18, "best: forest", ["line 18, best: 'forest' is not a model here"]),
    (18, "best: {params: {}}", ["line 18, best.name: missing"]),
    (20, "  test_size: 1.5", ["line 20, split.test_size: 1.5 is not allowed; it must be less than 1"]),
    (20, "  test_size: .nan", ["line 20, split.test_size: nan is not allowed; it must be a finite number"]),
    (20, "  test_size: half", ["line 20, split.test_size: expected a number, got text 'half'"]),
    (21, "  columns: numerc", ["line 21, split.columns: 'numerc' is not allowed; it must be one of [numeric, all]"
                               " or a list. Did you mean 'numeric'?"]),
    (21, "  columns: [a, 1]", ["line 21, split.columns.1: expected text, got the number 1; write it in quotes to"
                               " make it text"]),
    (22, "  workers: 0", ["line 22, split.workers: 0 is not allowed; it must be 1 or more or one of [auto]"]),
    (23, "device: CUDA", ["line 23, device: 'CUDA' is not allowed. Allowed: [cpu, cuda]. Did you mean 'cuda'?"]),
    (24, "when: 2025-13-01", ["line 24, when: expected a date such as 2025-01-31, got text '2025-13-01'"]),
    (24, "folds: [1.5, x]", ["line 24, folds.0: expected a whole number, got the number 1.5",
                             "line 24, folds.1: expected a number, got text 'x'"]),
    (24, "born: !!python/object/apply:os.system [ls]", [
        "line 24, born: the tag '!!python/object/apply:os.system' is not allowed; write a text that starts with '!'"
        " in quotes"]),
    (25, "seeds: []", ["line 25, seeds: a list is not allowed; it must be of length 1 or more"]),
    (25, "seeds: [maybe]", ["line 25, seeds.0: expected true or false, got text 'maybe'"]),
    (27, "  low: 3", ["line 27, bounds.low: 3 is not allowed; it must be a multiple of 2"]),
    (29, "  c:", ["line 29, more.c: 'c' is not allowed. Allowed: [a, b]."]),
    (30, "    nmae: inner", ["line 29, more.a.name: missing", "line 30, more.a.nmae: unknown key 'nmae'."
                             " Allowed: [name, params]. Did you mean 'name'?"]),
]  # fmt: skip


def test_valid_spec_is_read_as_its_model(write: Callable[..., Path]) -> None:
    spec = load(write(VALID), Spec)
    assert isinstance(spec.tables[0], Filter)
    assert spec.tables[0].filter == 3
    assert spec.models == ["linear", Model(name="tree", params={"depth": 3})]
    assert spec.best == Model(name="tree")
    assert spec.born == "2025-01-31"
    assert load(str(write(VALID, "spec.yml")), Spec) == spec


@pytest.mark.parametrize(("line", "text", "expected"), MISTAKES, ids=[text.strip() for _, text, _ in MISTAKES])
def test_each_mistake_is_named_with_its_line(
    write: Callable[..., Path], line: int, text: str, expected: list[str]
) -> None:
    lines = VALID.splitlines()
    lines[line - 1] = text
    assert problems_of(write("\n".join(lines))) == expected


@settings(max_examples=40, deadline=None)
@given(chosen=st.sets(st.integers(0, len(MISTAKES) - 1), min_size=1))
@example(chosen=set(range(len(MISTAKES))))
def test_mistakes_are_told_all_at_once(folder: Path, chosen: set[int]) -> None:
    # One mistake a line; a wrong operation hides what else is wrong in it.
    by_line = {MISTAKES[number][0]: MISTAKES[number] for number in sorted(chosen)}
    if 4 in by_line:
        by_line = {line: mistake for line, mistake in by_line.items() if line not in (5, 6)}
    if {5, 6} <= by_line.keys():
        del by_line[5]
    lines = VALID.splitlines()
    for line, text, _ in by_line.values():
        lines[line - 1] = text
    path = folder / "many.yaml"
    path.write_text("\n".join(lines))
    expected = [problem for mistake in by_line.values() for problem in mistake[2]]
    if {29, 30} <= by_line.keys():
        expected = [line.replace("more.a.", "more.c.") for line in expected]
    assert sorted(problems_of(path)) == sorted(expected)


def test_problems_hold_path_line_and_value(write: Callable[..., Path]) -> None:
    with pytest.raises(SpecError) as caught:
        load(write("name: 7\nsplit: {test_size: 2}\nseeds: []"), Spec)
    assert [(p.path, p.line, p.value) for p in caught.value.problems] == [
        ("name", 1, 7),
        ("split.test_size", 2, 2),
        ("seeds", 3, []),
    ]
    # What pickling would do on the way from another process.
    again = copy.copy(caught.value)
    assert str(again) == str(caught.value)
    assert isinstance(again.problems[0], Problem)


def test_problems_are_in_the_order_of_the_lines(write: Callable[..., Path]) -> None:
    lines = problems_of(write("zzz: 1\nseeds: 1\nname: 1\nname: 2\n"), "split=3", "tables.1")
    assert [line.split(":")[0] for line in lines] == [
        "line 1, zzz",
        "line 2, seeds",
        "line 4, name",
        "--set 'tables.1' is not of the form path=value, such as data.path=other.parquet",
        "split",
    ]


def test_validators_of_the_whole_spec_speak_for_themselves() -> None:
    assert problems_of({"name": "empty"}) == ["an empty job has nothing to do"]


class Square(Part):
    shape: Literal["square"]
    side: datetime.timedelta


class Circle(Part):
    shape: Literal["circle"]
    radius: float


@dataclass
class Span:
    first: int


class Drawing(Part):
    shape: Annotated[Annotated[Square | Circle, Field(discriminator="shape")] | Filled, Field(discriminator="shape")]
    span: Span


class Filled(Part):
    shape: Literal["filled"]


def test_unions_of_unions_dataclasses_and_rare_kinds() -> None:
    with pytest.raises(SpecError) as caught:
        load({"shape": {"shape": "square", "side": "long"}, "span": {"first": "x"}}, Drawing)
    assert list(map(str, caught.value.problems)) == [
        "shape.side: 'long' is not allowed; it should be a valid timedelta, invalid digit in duration",
        "span.first: expected a whole number, got text 'x'",
    ]
    with pytest.raises(
        SpecError, match=r"shape\.shape: 'circel' is not a shape\. Allowed: \[square, circle, filled\]\. Did"
    ):
        load({"shape": {"shape": "circel"}, "span": {"first": 1}}, Drawing)


# --- files and mappings -----------------------------------------------------------------------------------------


def test_missing_file_names_its_neighbour(write: Callable[..., Path]) -> None:
    path = write(VALID, "adult.yaml")
    write("x", "adlt.txt")
    with pytest.raises(RequestError) as caught:
        load(path.with_name("adlut.yaml"), Spec)
    expected = f"Spec file 'adlut.yaml' was not found in {path.parent}. Did you mean 'adult.yaml'?"
    assert str(caught.value) == expected
    with pytest.raises(RequestError, match=r"Spec file 'a\.yaml' was not found: there is no folder .*nowhere"):
        load(path.parent / "nowhere" / "a.yaml", Spec)


def test_file_that_is_no_spec(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"Spec file '.*spec\.toml' must be named \.yaml, \.yml or \.json"):
        load(tmp_path / "spec.toml", Spec)
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9")
    with pytest.raises(RequestError, match=r"latin\.yaml' is not UTF-8 text \(byte 10\)"):
        load(tmp_path / "latin.yaml", Spec)
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(RequestError, match=r"folder\.yaml' cannot be read: Is a directory"):
        load(tmp_path / "folder.yaml", Spec)
    with pytest.raises(RequestError, match=r"cannot be read: embedded null byte"):
        load("a\0.yaml", Spec)
    with pytest.raises(RequestError, match=r"cannot be read: File name too long"):
        load("a" * 5000 + ".yaml", Spec)
    with pytest.raises(RequestError, match=r"A job spec is a file or a mapping, not a list"):
        load([1], Spec)  # type: ignore[arg-type]


def test_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    for name, text in {"a.yaml": "name: a", "a.json": '{"name": "a"}'}.items():
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
        assert load(tmp_path / name, Spec).name == "a"


def test_mapping_has_problems_without_lines() -> None:
    assert problems_of({"nam": "a", "tables": [{"op": "filtr"}], "split": {"test_size": 0}}) == [
        "name: missing",
        "tables.0.op: 'filtr' is not an operation. Allowed: [filter, rename, alias, join]. Did you mean 'filter'?",
        "split.test_size: 0 is not allowed; it must be greater than 0",
        "nam: unknown key 'nam'. Allowed: [name, tables, first, models, best, split, device, born, when, folds,"
        " seeds, bounds, more]. Did you mean 'name'?",
    ]


def test_mapping_is_not_changed() -> None:
    source = {"name": "a", "models": [{"name": "b", "params": {"x": 1}}]}
    load(source, Spec, ["models.0.params.x=2", "split.test_size=0.1"])
    assert source == {"name": "a", "models": [{"name": "b", "params": {"x": 1}}]}


def test_mapping_of_other_types_becomes_plain_data() -> None:
    class Text(str):
        __slots__ = ()

    source = {
        "path": Path("x") / "y",
        "day": datetime.date(2025, 1, 31),
        "time": datetime.datetime(2025, 1, 31, 10),
        "count": np.int64(3),
        "share": np.float64(0.5),
        "text": Text("a"),
        "pair": (1, True),
        1: {2.5: None},
    }
    found = load(source, Anything).model_extra  # type: ignore[arg-type]
    assert found == {
        "path": "x/y",
        "day": "2025-01-31",
        "time": "2025-01-31T10:00:00",
        "count": 3,
        "share": 0.5,
        "text": "a",
        "pair": [1, True],
        "1": {"2.5": None},
    }
    assert {type(value) for value in found.values()} == {str, int, float, list, dict}


def test_mapping_with_keys_that_no_file_could_have() -> None:
    odd: dict[Any, Any] = {"name": "a", "more": {1: "x", "1": "y", (2,): "z"}}
    lines = problems_of(odd)
    assert "more.1: the key '1' is given twice" in lines
    assert "more.<a list>: a key must be a text" in lines
    loop: dict[str, Any] = {"name": "a"}
    loop["more"] = loop
    assert problems_of(loop) == ["nested more than 100 levels deep, or contains itself"]


def test_huge_numbers_are_described_in_words() -> None:
    assert problems_of({"name": 10**5000}) == [
        "name: expected text, got the number about 1e5000; write it in quotes to make it text"
    ]


# --- overrides --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("a.b=other.parquet", "other.parquet"), ("a.b=0.3", 0.3), ("a.b=8", 8), ("a.b=true", True), ("a.b=", None),
        ("a.b=null", None), ("a.b='8'", "8"), ("a.b=[1, x]", [1, "x"]), ("a.b={c: 1}", {"c": 1}), ('a.b="x"', "x"),
        ("a.b=*.parquet", "*.parquet"), ("a.b=>50K", ">50K"), ("a.b=age > 1 # x", "age > 1 # x"),
        ("a.b=c: d", "c: d"), ("a.b=k=v", "k=v"), ("a.b=!!python/name:x", "!!python/name:x"),
        ("a.b=2025-01-31", "2025-01-31"), (" a.b = 8 ", 8),
    ],
)  # fmt: skip
def test_overrides_set_any_leaf(override: str, value: object) -> None:
    assert load({}, Anything, [override]).model_extra == {"a": {"b": value}}


def test_overrides_follow_lists_and_make_mappings(write: Callable[..., Path]) -> None:
    overrides = ["models.1.params.more.depth=8", "models.0=forest", "split={}", "split.test_size=0.3"]
    spec = load(write(VALID), Spec, overrides)
    assert spec.models == ["forest", Model(name="tree", params={"depth": 3, "more": {"depth": 8}})]
    assert spec.split == Split(test_size=0.3)


def test_override_of_a_null_makes_a_mapping(write: Callable[..., Path]) -> None:
    spec = load(write("name: a\nsplit:\n"), Spec, ["split.test_size=0.1"])
    assert spec.split == Split(test_size=0.1)


def test_override_finds_keys_with_dots() -> None:
    source = {"columns": {"name.1": {"x.y": "a"}, "name": "b"}}
    assert load(source, Anything, ["columns.name.1.x.y=c", "columns.name=d"]).model_extra == {
        "columns": {"name.1": {"x.y": "c"}, "name": "d"}
    }


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("split.test_size=1.5", "split.test_size: 1.5 is not allowed; it must be less than 1 (from --set)"),
        ("split.test_sie=1", "split.test_sie: unknown key 'test_sie'. Allowed: [test_size, columns, workers]."
                             " Did you mean 'test_size'? (from --set)"),
        ("tables.0.op=filtre", "tables.0.op: 'filtre' is not an operation. Allowed: [filter, rename, alias, join]."
                               " Did you mean 'filter'? (from --set)"),
        ("tables.3.sql=x", "tables.3.sql: the list 'tables' has the items 0 to 2; it has no item '3' (from --set)"),
        ("tables.-1.sql=x", "tables.-1.sql: the list 'tables' has the items 0 to 2; it has no item '-1' (from --set)"),
        ("tables.first=x", "tables.first: the list 'tables' has the items 0 to 2; it has no item 'first' (from --set)"),
        ("models.0.name=x", "models.0.name: 'models.0' is 'linear' and has no 'name' to set; set 'models.0' as a whole"
                            " (from --set)"),
        ("more.a={}", "more.a.name: missing (from --set)"),
        ("born=[1", "born: not valid YAML at column 3: expected ',' or ']', but got the end of the text (from --set)"),
        ("more={a: !x 1, b: 2}", "more.a: the tag '!x' is not allowed; write a text that starts with '!' in quotes"
                                 " (from --set)"),
        ("born", "--set 'born' is not of the form path=value, such as data.path=other.parquet"),
        ("=x", "--set '=x' is not of the form path=value, such as data.path=other.parquet"),
        ("a..b=x", "--set 'a..b=x' is not of the form path=value, such as data.path=other.parquet"),
    ],
)  # fmt: skip
def test_wrong_overrides_are_told_without_a_line(write: Callable[..., Path], override: str, message: str) -> None:
    assert problems_of(write(VALID), override) == [message]


def test_override_of_an_empty_list() -> None:
    assert problems_of({"name": "a", "models": []}, "models.0=x") == [
        "models.0: the list 'models' is empty; it has no item '0' (from --set)"
    ]


# --- nothing else is ever raised --------------------------------------------------------------------------------


NAMES = st.sampled_from([*Spec.model_fields, "op", "sql", "filter", "with", "path", "test_size", "columns", "params"])
VALUES = SCALARS | st.sampled_from(["filter", "join", "tree", 0, 1.5, [], {}, 10**400, math.nan, math.inf])
ODD = st.binary(max_size=3) | st.dates() | st.tuples(st.integers()) | st.builds(object)


@settings(max_examples=200, deadline=None)
@given(
    data=nested(VALUES | ODD, NAMES | SCALARS),
    overrides=st.lists(
        st.text(max_size=12) | st.builds("{}.{}={}".format, NAMES, NAMES, st.text(max_size=6)), max_size=3
    ),
)
def test_any_mapping_is_read_or_refused_in_words(data: dict[Any, Any], overrides: list[str]) -> None:
    assert_read_or_refused(data, overrides)
