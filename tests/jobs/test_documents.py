"""The text of a spec: what YAML 1.2 and JSON mean, on which line, and what is refused before any model sees it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.jobs.demo_spec import SCALARS, Anything, Model, Spec, assert_read_or_refused, nested, problems_of
from treadle.jobs.loading import SpecError, load


def read(path: Path) -> Any:
    return load(path, Anything).model_extra


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a: b", "line 1: not valid YAML at column 8: mapping values are not allowed here; write a text that"
                       " contains ': ' in quotes"),
        ("name: a\nsplit:\n\ttest_size: 1", "line 3: not valid YAML at column 1: found character '\\t' that cannot"
                                            " start any token; indent with spaces, not tabs"),
        ("name: [a\n", "line 2: not valid YAML at column 1: expected ',' or ']', but got the end of the text"),
        ("name: *.csv", "line 1: not valid YAML at column 7: found undefined alias '.csv'; write a text that starts"
                        " with '*' in quotes"),
        ("name: @a", "line 1: not valid YAML at column 7: found character '@' that cannot start any token; write the"
                     " text in quotes"),
        ("a: 1\n---\nb: 2", "line 2: not valid YAML at column 1: but found another document; write each job to a"
                            " file of its own"),
        ('name: "\\UFFFFFFFF"', "not valid YAML: an escape such as \\U names no character"),
        ("name: a\nborn: \0", "line 2: the character '\\x00' is not allowed in YAML"),
        ("", "the spec is empty; it must be a mapping of keys to values, such as 'name: first-job'"),
        ("- a", "line 1: the spec is a list; it must be a mapping of keys to values, such as 'name: first-job'"),
        ("name: a\nname: a", "line 2, name: the key 'name' is given twice, on lines 1 and 2"),
        ("{name: a, name: a}", "line 1, name: the key 'name' is given twice on line 1"),
        ("name: a\n? [b]\n: c", "line 2: a key must be a text, not a list or a mapping"),
        ("name: a\n<<: {born: x}", "line 2: '<<' merges nothing in YAML 1.2; write the keys out"),
        ("name: a\nmore: !!set {}", "line 2, more: the tag '!!set' is not allowed; write a text that starts with '!'"
                                    " in quotes"),
        ("name: a\n!secret born: x", "line 2, born: the tag '!secret' is not allowed; write a text that starts with"
                                     " '!' in quotes"),
        ("name: a\nmore: &m {a: *m}", "line 2: nested more than 100 levels deep, or contains itself"),
        ("name: " + "[" * 1000, "nested more than 100 levels deep, or contains itself"),
    ],
)  # fmt: skip
def test_yaml_that_cannot_be_read(write: Callable[..., Path], text: str, message: str) -> None:
    assert problems_of(write(text)) == [message]


def test_aliases_do_not_expand_without_end(write: Callable[..., Path]) -> None:
    levels = [f"  l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 50)}]" for n in range(1, 6)]
    text = "\n".join(["name: a", "more:", "  l0: &l0 [x]", *levels])
    assert problems_of(write(text))[0].endswith("more than 200000 values, counting those that aliases repeat")


def test_aliases_repeat_data_that_overrides_change_in_one_place(write: Callable[..., Path]) -> None:
    text = "name: a\nmodels:\n  - {name: b, params: &p {x: 1}}\n  - {name: c, params: *p}\n"
    spec = load(write(text), Spec, ["models.0.params.x=2"])
    assert [model.params for model in spec.models if isinstance(model, Model)] == [{"x": 2}, {"x": 1}]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"), ("on", "on"), ("NO", "NO"), ("true", True), ("False", False), ("~", None), ("", None),
        ("null", None), ("7", 7), ("-7", -7), ("010", 10), ("0o17", 15), ("0x1f", 31), ("1_000", "1_000"),
        ("1:30", "1:30"), ("1e3", 1000.0), (".5", 0.5), ("1.", 1.0), ("-.inf", -math.inf), ("2025-01-31", "2025-01-31"),
        ("2025-01-31T10:00:00Z", "2025-01-31T10:00:00Z"), ("'7'", "7"), ('"true"', "true"), ("!!str 7", "7"),
        ("!!int '7'", 7), ("!!float 1", 1), ("=", "="), ("&a x", "x"), ("|\n  a\n  b", "a\nb\n"), (">50K", None),
        ("9" * 5000, "9" * 5000),
    ],
)  # fmt: skip
def test_scalars_mean_what_yaml_1_2_says(write: Callable[..., Path], text: str, value: object) -> None:
    path = write(f"%YAML 1.1\n---\nkey: {text}\n" if text in ("yes", "on", "NO") else f"key: {text}\n")
    if text == ">50K":
        assert "not valid YAML at column 8" in problems_of(path)[0]
    else:
        found = read(path)["key"]
        assert found == value
        assert type(found) is type(value)


def test_keys_are_texts_as_in_json(write: Callable[..., Path]) -> None:
    assert read(write("1: a\ntrue: b\n2025-01-31: c\n~: d")) == {"1": "a", "true": "b", "2025-01-31": "c", "~": "d"}


# --- JSON -------------------------------------------------------------------------------------------------------


def test_json_has_lines_too(write: Callable[..., Path]) -> None:
    text = '{\n\t"name": "a",\n\t"split": {"test_size": 2},\n\t"seeds": [\n\t\ttrue,\n\t\t"x"\n\t],\n\t"name": "b"\n}'
    assert problems_of(write(text, "spec.json")) == [
        "line 3, split.test_size: 2 is not allowed; it must be less than 1",
        "line 6, seeds.1: expected true or false, got text 'x'",
        "line 8, name: the key 'name' is given twice, on lines 2 and 8",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"name": "a"\n "born": "b"}', "line 2: not valid JSON at column 2: Expecting ',' delimiter"),
        ('{"name":\n  yes}', "line 2: not valid JSON at column 3: Expecting value"),
        ("", "line 1: not valid JSON at column 1: Expecting value"),
        ("[" * 100_000, "nested more than 100 levels deep, or contains itself"),
        ('{"name": ' + "[" * 200 + "]" * 200 + "}", "line 1: nested more than 100 levels deep, or contains itself"),
        ("[1]", "line 1: the spec is a list; it must be a mapping of keys to values, such as 'name: first-job'"),
    ],
)
def test_json_that_cannot_be_read(write: Callable[..., Path], text: str, message: str) -> None:
    assert problems_of(write(text, "spec.json")) == [message]


def test_json_with_too_many_digits(write: Callable[..., Path]) -> None:
    assert problems_of(write('{"name": %s}' % ("1" * 5000), "a.json"))[0].startswith("not valid JSON: Exceeds")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '{"name":\n"\\ud800"}'),
        ("a.json", '{"name": "a",\n"\\ud800": 1}'),
        ("a.yaml", 'a: b\nname: "\\ud800"'),
    ],
)
def test_half_a_surrogate_pair_is_refused(write: Callable[..., Path], name: str, text: str) -> None:
    expected = "line 2: '\\ud800' holds half a character; write the character, not its escapes"
    assert problems_of(write(text, name)) == [expected]
    assert problems_of({"name": "\ud800"}) == [expected.removeprefix("line 2: ")]


def test_characters_beyond_16_bits_are_read_from_json(write: Callable[..., Path]) -> None:
    assert read(write('{"a": "\\ud83d\\ude00"}', "a.json")) == {"a": "\N{GRINNING FACE}"}


@settings(max_examples=60, deadline=None)
@given(data=nested(SCALARS, st.text(max_size=10)), indent=st.sampled_from([None, 0, 2, "\t"]), ascii_only=st.booleans())
def test_json_data_are_what_the_json_module_reads(
    folder: Path, data: dict[str, Any], indent: int | str | None, ascii_only: bool
) -> None:
    text = json.dumps(data, indent=indent, ensure_ascii=ascii_only)
    path = folder / "data.json"
    path.write_bytes(text.encode())
    assert json.dumps(read(path)) == json.dumps(json.loads(text))


PRINTABLE = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]) | st.sampled_from("éß中"), max_size=10)


NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=60, deadline=None)
@given(data=nested(st.none() | st.booleans() | NUMBERS | PRINTABLE, PRINTABLE))
def test_json_is_yaml_and_both_agree(folder: Path, data: dict[str, Any]) -> None:
    path = folder / "data.yaml"
    path.write_bytes(json.dumps(data, indent=1, ensure_ascii=False).encode())
    assert json.dumps(read(path)) == json.dumps(data)


@settings(max_examples=100, deadline=None)
@given(
    keys=st.lists(st.text("abcdef", min_size=1, max_size=6), min_size=1, unique=True),
    suffix=st.sampled_from(["json", "yaml"]),
)
def test_each_line_is_that_of_its_key(folder: Path, keys: list[str], suffix: str) -> None:
    data = {"name": "a", "split": {f"x{key}": {"y": 1} for key in keys}}
    text = json.dumps(data, indent=1)
    path = folder / f"lines.{suffix}"
    path.write_text(text)
    with pytest.raises(SpecError) as caught:
        load(path, Spec)
    lines = text.splitlines()
    assert len(caught.value.problems) == len(keys)
    for key, problem in zip(keys, caught.value.problems, strict=True):
        assert problem.path == f"split.x{key}"
        assert problem.line is not None
        assert f'"x{key}"' in lines[problem.line - 1]


YAML_PARTS = st.sampled_from(
    ["name", "tables", ": ", ":\n  ", "\n", "\n  - ", "- ", "[", "]", "{", "}", ", ", "&a ", "*a", "<<: ", "!!",
     "!x ", "|", ">", "'", '"', "\\U", "#", "%YAML 1.1\n", "---\n", "...", "? ", "\t", "\0", "\ufeff", "=", "0x", "1e5",
     "-_", "op: filter"]
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(
    text=st.lists(YAML_PARTS | st.text(max_size=4), max_size=20).map("".join),
    suffix=st.sampled_from(["yaml", "json"]),
)
def test_any_text_is_read_or_refused_in_words(folder: Path, text: str, suffix: str) -> None:
    path = folder / f"any.{suffix}"
    path.write_bytes(text.encode("utf-8", "replace"))
    assert_read_or_refused(path, [])
