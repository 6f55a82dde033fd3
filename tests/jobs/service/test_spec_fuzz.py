"""Whatever is submitted is accepted or refused cleanly, and what is refused leaves nothing behind."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.jobs.service.inside import Inside, inside

WHOLE: dict[str, Any] = {
    "apiVersion": "treadle/v1",
    "name": "whole",
    "seed": 3,
    "data": {"path": ["sklearn://iris"], "target": "target", "types": {"a": "int"}, "bad_rows": {"limit": 2}},
    "contract": [{"expect": "known", "columns": ["a"], "in": {"path": "other.csv"}}],
    "tables": [
        {"op": "derive", "name": "b", "sql": "ln(a)"},
        {"op": "join", "with": {"path": "other.csv"}, "on": ["a"]},
    ],
    "features": [{"op": "scale", "columns": "numeric"}],
    "split": {"kind": "path", "path": "other.csv"},
    "models": [{"name": "xgboost", "params": {"n_estimators": 3}, "continue_from": "other:1"}, "decision_tree"],
    "metric": "accuracy",
    "explain": {"rows": "none"},
    "artifacts": {"root": "artifacts", "sample": 3},
}
ODD = (
    "",
    "\0",
    "a\0b",
    "\ud800",
    "\U0001f9f5",
    "\u202e",
    "x" * 5000,
    "a" * 300 + "/b",
    "../" * 20,
    "s3://[",
    "::",
    "**a",
)
NUMBERS = (10**30, -(10**400), float("nan"), float("inf"), -0.0, 5e-324)
texts = st.text(max_size=8) | st.sampled_from(ODD)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts | st.sampled_from(NUMBERS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "other.csv").write_text("a,target\n1,2\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with inside(folder) as one:
            yield one


def check(here: Inside, answer: httpx.Response, before: int) -> None:
    """Accepted, or a problem that says what is wrong; only the first leaves a job, whose spec can be read again."""
    if answer.status_code == 201:
        assert here.jobs == before + 1
        details = here.ask("GET", answer.headers["Location"])
        assert details.status_code == 200, details.text
        json.loads(details.content, parse_constant=pytest.fail)
        return
    assert answer.status_code in (400, 403, 413, 422), answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == answer.status_code
    assert len(problem["detail"]) > 10
    assert here.jobs == before


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a document, below its root."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [(*path, key) for key, _ in items]
    return found + [place for key, inner in list(items) for place in places(inner, (*path, key))]


def put(document: Any, place: tuple[Any, ...], value: Any) -> None:
    for key in place[:-1]:
        document = document[key]
    document[place[-1]] = value


@given(document=values)
@example(document=[])
@settings(max_examples=60)
def test_any_json_is_a_clean_answer(here: Inside, document: Any) -> None:
    before = here.jobs
    check(here, here.submit(json.dumps(document)), before)


@given(spec=st.dictionaries(st.sampled_from([*WHOLE, "cluster"]) | texts, values, max_size=6))
@settings(max_examples=60)
def test_any_spec_is_a_clean_answer(here: Inside, spec: dict[str, Any]) -> None:
    before = here.jobs
    check(here, here.submit(json.dumps({"spec": spec})), before)


@given(data=st.data())
@settings(max_examples=150)
def test_a_spec_with_something_changed_is_a_clean_answer(here: Inside, data: st.DataObject) -> None:
    spec = copy.deepcopy(WHOLE)
    for _ in range(data.draw(st.integers(1, 2))):
        put(spec, data.draw(st.sampled_from(places(spec))), data.draw(values))
    before = here.jobs
    check(here, here.submit(json.dumps({"spec": spec})), before)


@pytest.mark.parametrize("place", places(WHOLE), ids=str)
def test_a_spec_without_a_key_is_a_clean_answer(here: Inside, place: tuple[Any, ...]) -> None:
    spec = copy.deepcopy(WHOLE)
    holder = spec
    for key in place[:-1]:
        holder = holder[key]
    del holder[place[-1]]
    before = here.jobs
    check(here, here.submit(json.dumps({"spec": spec})), before)


@given(option=st.sampled_from(["submission_id", "priority", "timeout", "retries", "after", "other"]), value=values)
@settings(max_examples=60)
def test_any_option_is_a_clean_answer(here: Inside, option: str, value: Any) -> None:
    before = here.jobs
    answer = here.submit(json.dumps({"spec": small(), option: value}))
    if answer.status_code == 404:  # it waits for a job that is not there
        assert option == "after"
        assert here.jobs == before
    elif answer.status_code == 200:  # the id was submitted before
        assert option == "submission_id"
    else:
        check(here, answer, before)


def small() -> dict[str, Any]:
    return {key: WHOLE[key] for key in ("apiVersion", "name")} | {"data": {"path": "sklearn://iris"}}


@given(text=st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-16")))
@settings(max_examples=60)
def test_any_bytes_are_a_clean_answer(here: Inside, text: bytes) -> None:
    before = here.jobs
    check(here, here.submit(text), before)


@pytest.mark.parametrize(
    "text",
    [
        '{"spec": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"spec": ' + '{"a":' * 900 + "1" + "}" * 901,
        '{"spec": {"seed": ' + "9" * 5000 + "}}",
        '{"spec": {"seed": NaN}}',
        '{"spec": {"name": "a", "name": "b"}}',
        '{"\\ud800": 1, "spec": {}}',
        '{"spec": {"\\ud800": 1}}',
        json.dumps({"spec": {f"datx{i}": 0 for i in range(20_000)}}),
        json.dumps({"spec": {}, **{f"k{i}": 0 for i in range(20_000)}}),
        json.dumps({"spec": {"name": "x" * 4_000_000}}),
        json.dumps({"spec": {"name": "x" * 5_000_000}}),
    ],
    ids=["deep lists", "deep mappings", "digits", "NaN", "twice", "half a key", "half a spec's key", "many keys",
         "many options", "long", "too long"],
)  # fmt: skip
def test_what_only_an_attack_would_send_is_a_clean_answer(here: Inside, text: str) -> None:
    before = here.jobs
    answer = here.submit(text)
    check(here, answer, before)
    assert answer.status_code != 201
    assert len(answer.content) < 200_000


def test_what_is_left_of_it_all_can_be_listed(here: Inside, tmp_path: Path) -> None:
    for path in ("/v1/jobs?limit=500", "/v1/audit?limit=500", "/metrics"):
        assert here.ask("GET", path).status_code == 200
