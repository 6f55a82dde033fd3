"""Faults of connections and busy services: what the clients do about them, and what they say."""

from __future__ import annotations

import asyncio
import inspect
import json
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import people_spec, write_people
from tests.jobs.client.faulty import (
    JOB_ID,
    Behaviour,
    Faulty,
    answer,
    cut,
    details,
    faulty_server,
    problem,
    reset,
    stream,
    view,
)
from treadle import AsyncClient, Client
from treadle.errors import RequestError, TreadleError
from treadle.jobs.client import (
    AsyncJob,
    Conflict,
    Job,
    JobFailed,
    NotFound,
    Refused,
    ServiceError,
    ServiceUnreachable,
    SpecRefused,
    StillRunning,
)
from treadle.jobs.client.local import LocalClient
from treadle.jobs.client.local_job import LocalJob
from treadle.jobs.client.policy import LONGEST, LONGEST_ASKED, Policy, retry_after
from treadle.jobs.client.streams import Lines, ServerSentEvents


@pytest.fixture(autouse=True)
def _no_service_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TREADLE_URL", "TREADLE_TOKEN", "TREADLE_CA"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[Faulty]:
    with faulty_server() as server:
        yield server


@pytest.fixture
def client(server: Faulty) -> Iterator[Client]:
    with Client(server.url, retries=3) as client:
        yield client


@pytest.fixture
def spec(tmp_path: Path) -> dict[str, Any]:
    people = write_people(tmp_path / "people.parquet", rows=10)
    return people_spec(people, tmp_path / "artifacts", "tcp://127.0.0.1:1")


def sse(number: int, kind: str, data: Any) -> bytes:
    return f"id: {number}\nevent: {kind}\ndata: {json.dumps(data)}\n\n".encode()


def test_a_submission_whose_answer_was_lost_is_sent_again_under_the_same_id(
    server: Faulty, client: Client, spec: dict[str, Any]
) -> None:
    server.script = [reset, answer(200, view())]
    job = client.submit(spec, priority=3, after=["a-job"])
    assert job.id == JOB_ID
    first, second = server.asked
    assert first.body == second.body
    assert len(first.body["submission_id"]) >= 32
    assert (first.body["priority"], first.body["after"]) == (3, ["a-job"])
    server.script = [answer(201, view())]
    client.submit(spec)
    assert server.asked[2].body["submission_id"] != first.body["submission_id"], "another submission is another job"


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_service_is_asked_again_no_sooner_than_it_says(server: Faulty, client: Client, status: int) -> None:
    server.script = [problem(status, "not now", Retry_After="1"), answer(200, details("running"))]
    before = time.monotonic()
    assert client.job(JOB_ID).seen.state.value == "running"
    assert time.monotonic() - before >= 1.0
    assert len(server.asked) == 2


def test_a_service_that_stays_busy_is_asked_so_often_and_no_more(server: Faulty) -> None:
    server.script = [problem(503, "storage is full") for _ in range(9)]
    with Client(server.url, retries=2) as client, pytest.raises(ServiceUnreachable, match="storage is full") as caught:
        client.job(JOB_ID)
    assert "asked 3 times" in str(caught.value)
    assert len(server.asked) == 3


def test_no_service_is_said_with_address_cause_and_remedy() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and nobody listens
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with Client(url, retries=1) as client, pytest.raises(ServiceUnreachable) as caught:
            client.health()
    for words in (url, "refused", "tried 2 times", "treadle up", "TREADLE_URL"):
        assert words in str(caught.value)
    assert isinstance(caught.value, TreadleError)


def test_a_service_that_does_not_answer_is_given_up_after_the_timeout(server: Faulty) -> None:
    server.script = [lambda _: time.sleep(3)]
    before = time.monotonic()
    with Client(server.url, timeout=0.3, retries=0) as client, pytest.raises(ServiceUnreachable, match="in time"):
        client.cluster()
    assert time.monotonic() - before < 2.5


ANSWERS: list[tuple[Behaviour, type[ServiceError], str]] = [
    (problem(400, "no JSON"), ServiceError, "no JSON"),
    (problem(401, "No token."), Refused, "TREADLE_TOKEN"),
    (problem(403, "It needs the scope submit."), Refused, "scope submit"),
    (problem(404, "There is no job 'x'."), NotFound, "no job 'x'"),
    (problem(409, "It has succeeded."), Conflict, "succeeded"),
    (problem(422, "1 problem", [{"path": "models.0", "message": "unknown"}]), SpecRefused, "models.0: unknown"),
    (problem(500, "It broke."), ServiceError, "It broke"),
    (answer(404, {"detail": "Not Found"}), NotFound, "is it a Treadle service"),
    (answer(200, b"<html>hello</html>"), ServiceError, "no Treadle service"),
    (answer(200, {"name": "something else"}), ServiceError, "no Treadle service"),
]


@pytest.mark.parametrize(("behaviour", "kind", "words"), ANSWERS)
def test_answers_become_typed_errors_and_are_not_asked_for_again(
    server: Faulty, client: Client, behaviour: Behaviour, kind: type[ServiceError], words: str
) -> None:
    server.script = [behaviour]
    with pytest.raises(kind, match=words) as caught:
        client.job("x")
    assert type(caught.value) is kind
    assert isinstance(caught.value, RequestError)
    assert len(server.asked) == 1
    if isinstance(caught.value, SpecRefused):
        assert caught.value.problems[0]["path"] == "models.0"


def test_a_token_that_is_not_known_is_said_to_be_and_never_shown(server: Faulty) -> None:
    server.script = [problem(401, "Not allowed.")]
    with Client(server.url, token="tr-secret") as client:
        with pytest.raises(Refused, match="not known") as caught:
            client.job("x")
        assert "tr-secret" not in f"{client!r} {client.target!r} {caught.value}"
    assert server.asked[0].headers["Authorization"] == "Bearer tr-secret"


def test_a_retry_whose_answer_was_lost_is_no_conflict(server: Faulty, client: Client) -> None:
    server.script = [answer(200, details("failed"))]
    job = client.job(JOB_ID)
    server.script = [reset, problem(409, "It is queued."), answer(200, details("queued"))]
    assert job.retry().state.value == "queued"
    server.script = [problem(409, "It is queued."), answer(200, details("queued"))]
    with pytest.raises(Conflict):
        job.retry()


def test_a_schedule_whose_removal_was_not_acknowledged_counts_as_removed(server: Faulty, client: Client) -> None:
    server.script = [reset, problem(404, "There is no schedule 'daily'.")]
    client.unschedule("daily")
    server.script = [problem(404, "There is no schedule 'daily'.")]
    with pytest.raises(NotFound, match="daily"):
        client.unschedule("daily")


def test_waiting_outlives_faults_and_ends_with_the_job(server: Faulty, client: Client) -> None:
    server.script = [answer(200, details())]
    job = client.job(JOB_ID)
    server.script = [answer(200, view("running")), reset, problem(503, "restarting"), answer(200, view("failed"))]
    with pytest.raises(JobFailed, match="It is failed") as caught:
        job.wait()
    assert caught.value.state.value == "failed"
    assert not isinstance(caught.value, RequestError)
    server.script = [answer(200, view("failed"))]
    assert job.wait(check=False).state.value == "failed"


def test_waiting_ends_in_time_whatever_the_service_does(server: Faulty, client: Client) -> None:
    server.script = [answer(200, details())]
    job = client.job(JOB_ID)
    server.script = [answer(200, view("running")) for _ in range(50)]
    before = time.monotonic()
    with pytest.raises(StillRunning, match="still running") as caught:
        job.wait(timeout=0.5)
    assert isinstance(caught.value, TimeoutError)
    server.script = [reset for _ in range(50)]
    with pytest.raises(ServiceUnreachable):
        job.wait(timeout=0.5)
    assert time.monotonic() - before < 3
    assert len(server.asked) < 15, "it does not ask all the time"


LOG = "Zeile eins\nZwei: Köln ✓\n\nletzte".encode()


@pytest.mark.parametrize("at", [0, 5, 11, 20, 24, len(LOG)])
def test_a_log_that_is_cut_goes_on_where_it_was_cut(server: Faulty, client: Client, at: int) -> None:
    server.script = [answer(200, details("running"))]
    job = client.job(JOB_ID)
    server.script = [
        cut(LOG[:at]) if at else reset,
        *([answer(200, details("running"))] if at else []),
        stream(LOG[at:]),
        answer(200, details("succeeded")),
        answer(200, b""),
    ]
    assert list(job.logs(follow=True)) == LOG.decode().split("\n")
    reopened = [asked for asked in server.asked if "follow=true" in asked.path][-1]
    assert f"offset={at}&" in reopened.path


@pytest.mark.parametrize("last", [b"c", b"cd"])
def test_a_log_that_comes_in_parts_is_put_together(server: Faulty, client: Client, last: bytes) -> None:
    """As much as there was at first, though it grows meanwhile."""
    server.script = [answer(200, details("running"))]
    job = client.job(JOB_ID)
    parts = (b"aa", b"\nb", last, b"not asked for")
    server.script = [answer(200, part, X_Log_Size=str(5 + 10 * i)) for i, part in enumerate(parts)]
    assert job.logs() == f"aa\nb{last.decode()}"
    assert [asked.path.partition("?")[2] for asked in server.asked[1:]] == [
        f"offset={offset}&follow=false" for offset in (0, 2, 4)
    ]


def test_a_log_stream_that_a_stopping_service_closes_is_not_the_end(server: Faulty, client: Client) -> None:
    server.script = [answer(200, details("running"))]
    job = client.job(JOB_ID)
    server.script = [
        stream(b"one\n"),
        answer(200, details("running")),
        stream(b"two\n"),
        answer(200, details("succeeded")),
        answer(200, b"three\n"),
        answer(200, b""),
    ]
    assert list(job.logs(follow=True)) == ["one", "two", "three"]


def test_events_that_are_cut_go_on_after_the_last_one(server: Faulty, client: Client) -> None:
    server.script = [answer(200, details("running"))]
    job = client.job(JOB_ID)
    first, second = {"stage": "read", "event": "started"}, {"stage": "read", "event": "finished"}
    server.script = [
        cut(b": hello\n\n", sse(1, "stage", first), sse(2, "stage", second)[:20]),
        stream(sse(2, "stage", second)),
        stream(sse(3, "end", view("succeeded"))),
    ]
    found = list(job.events())
    assert [event.id for event in found] == ["1", "2", "3"]
    assert [event.data.get("event") for event in found[:2]] == ["started", "finished"]
    assert found[2].data["state"] == "succeeded"
    assert [asked.headers.get("Last-Event-ID") for asked in server.asked[1:]] == [None, "1", "2"]


def test_a_stream_that_never_brings_anything_is_given_up(server: Faulty) -> None:
    server.script = [answer(200, details("running"))]
    with Client(server.url, retries=0) as client:
        job = client.job(JOB_ID)
        server.script = [stream(b"") for _ in range(5)]
        with pytest.raises(ServiceUnreachable):
            list(job.events())


def test_asynchronous_clients_do_the_same(server: Faulty, spec: dict[str, Any]) -> None:
    async def script() -> None:
        async with AsyncClient(server.url, retries=3) as client:
            server.script = [reset, answer(201, view()), answer(200, details("running"))]
            job = await client.submit(spec)
            assert server.asked[0].body == server.asked[1].body
            assert await job.status() == "running"
            server.script = [cut(b"one\ntw"), answer(200, details("running")), stream(b"o\n"),
                             answer(200, details("succeeded")), answer(200, b"")]  # fmt: skip
            assert [line async for line in job.logs(follow=True)] == ["one", "two"]
            server.script = [answer(200, b"one\ntwo\n"), answer(200, b"")]
            assert await job.logs() == "one\ntwo\n"
            server.script = [cut(sse(1, "state", {"after": "running"})), stream(sse(2, "end", view("failed")))]
            assert [event.kind async for event in job.events()] == ["state", "end"]
            server.script = [reset, answer(200, view("failed"))]
            with pytest.raises(JobFailed):
                await job.wait()
            server.script = [answer(200, {"jobs": [view()], "next": "more"}), answer(200, {"jobs": [], "next": None})]
            assert [job.id async for job in client.jobs(state="queued")] == [JOB_ID]
            assert server.asked[-1].path.endswith("&cursor=more")

    asyncio.run(script())


def test_jobs_come_in_pages_that_are_asked_for_when_they_are_needed(server: Faulty, client: Client) -> None:
    server.script = [
        answer(200, {"jobs": [view(id=f"a-{i}") for i in range(3)], "next": "c 1"}),
        answer(200, {"jobs": [view(id="b")], "next": None}),
    ]
    jobs = client.jobs(state=["queued", "running"], name="adult", limit=10)
    assert next(jobs).id == "a-0"
    assert len(server.asked) == 1
    assert [job.id for job in jobs] == ["a-1", "a-2", "b"]
    assert "state=queued&state=running&name=adult&limit=10" in server.asked[0].path
    assert server.asked[1].path.endswith("limit=7&cursor=c+1") or server.asked[1].path.endswith("limit=7&cursor=c%201")
    with pytest.raises(RequestError, match="Did you mean 'queued'"):
        client.jobs(state="queud")


def test_keys_that_a_newer_service_adds_do_no_harm(server: Faulty, client: Client) -> None:
    server.script = [answer(200, {**details(), "mood": "good"})]
    assert client.job(JOB_ID).id == JOB_ID


def test_specs_are_checked_before_anything_is_sent(server: Faulty, client: Client, spec: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="Did you mean 'xgboost'"):
        client.submit(spec, overrides=["models.0.name=xgbost"])
    with pytest.raises(RequestError, match="was not found"):
        client.submit({**spec, "data": {**spec["data"], "path": "nowhere.parquet"}})
    with pytest.raises(RequestError, match="priority"):
        client.submit(spec, priority=5000)
    with pytest.raises(RequestError, match="submission_id"):
        client.submit(spec, submission_id="with spaces")
    assert not server.asked


def test_paths_are_absolute_for_a_service_here_and_stand_as_they_are_for_files_elsewhere(
    server: Faulty, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from treadle.jobs.client.requests import document_of
    from treadle.jobs.client.target import target_of

    write_people(tmp_path / "people.parquet", rows=10)
    (tmp_path / "spec.json").write_text(json.dumps(people_spec("people.parquet", "mine", "tcp://127.0.0.1:1")))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    server.script = [answer(201, view())]
    client.submit(tmp_path / "spec.json")
    sent = server.asked[0].body["spec"]
    assert sent["data"]["path"] == str(tmp_path / "people.parquet")
    assert sent["artifacts"]["root"] == str(tmp_path / "elsewhere" / "mine")

    there = target_of("https://jobs.example.org")
    assert document_of(tmp_path / "spec.json", there)["data"]["path"] == str(tmp_path / "people.parquet")
    unknown = people_spec("only-there/*.parquet", "mine", "tcp://127.0.0.1:1")
    sent = document_of(unknown, there)
    assert (sent["data"]["path"], sent["artifacts"]["root"]) == ("only-there/*.parquet", "mine")
    with pytest.raises(RequestError, match="Did you mean"):
        document_of({**unknown, "modles": []}, there)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"url": "localhost:8844"}, "Did you mean 'http://localhost:8844'"),
        ({"url": "ftp://a"}, "http://127.0.0.1:8844"),
        ({"url": "http://me:secret@a"}, "give a token"),
        ({"url": "http://a:port"}, "no address"),
        ({"token": "a\nb"}, "copy it again"),
        ({"timeout": 0}, "timeout"),
        ({"url": "https://a", "ca": "/no/such.pem"}, "/no/such.pem"),
    ],
)
def test_what_cannot_be_asked_is_refused_at_once(options: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words) as caught:
        Client(**options)
    assert "secret" not in str(caught.value)


def test_the_environment_names_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TREADLE_URL", "http://127.0.0.1:1/")
    monkeypatch.setenv("TREADLE_TOKEN", "abc\n")
    with Client() as client:
        assert (client.target.url, client.target.token) == ("http://127.0.0.1:1", "abc")
    with Client("http://127.0.0.1:2", "other") as client:
        assert (client.target.url, client.target.token) == ("http://127.0.0.1:2", "other")


def test_proxies_are_not_asked_for_this_machine(server: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    server.script = [answer(200, details())]
    with Client(server.url, retries=0) as client:
        assert client.job(JOB_ID).id == JOB_ID


@given(st.text(alphabet="aä✓\n\r ", max_size=40), st.data())
def test_lines_do_not_depend_on_how_the_bytes_are_cut(text: str, data: st.DataObject) -> None:
    raw, lines, found = text.encode(), Lines(), []
    while raw:
        size = data.draw(st.integers(1, len(raw)))
        found += lines.feed(raw[:size])
        raw = raw[size:]
    found += lines.rest()
    assert found == (text.removesuffix("\n").split("\n") if text else [])


EVENTS = [("stage", {"stage": "lesen ✓", "event": "started", "note": "a\nb"}), ("state", {"after": "x"}), ("end", {})]


@given(st.lists(st.sampled_from(EVENTS), max_size=5), st.sampled_from(["\n", "\r\n"]), st.data())
def test_events_do_not_depend_on_how_the_bytes_are_cut(
    events: list[tuple[str, dict[str, Any]]], end: str, data: st.DataObject
) -> None:
    text = "".join(f": ping\n\nid: {i}\nevent: {k}\ndata: {json.dumps(d)}\n\n" for i, (k, d) in enumerate(events))
    raw, parser, found = text.replace("\n", end).encode(), ServerSentEvents(), []
    while raw:
        size = data.draw(st.integers(1, len(raw)))
        found += parser.feed(raw[:size])
        raw = raw[size:]
    assert [(event.id, event.kind, event.data) for event in found] == [(str(i), *e) for i, e in enumerate(events)]


@given(st.integers(1, 1000), st.one_of(st.none(), st.floats(0, 1e6)))
def test_pauses_grow_to_a_limit_and_are_no_shorter_than_asked(tried: int, asked: float | None) -> None:
    longest = min(LONGEST, 0.25 * 2 ** min(tried - 1, 20))
    wanted = min(asked or 0.0, LONGEST_ASKED)
    assert max(longest / 2, wanted) <= Policy().delay(tried, asked) <= max(longest, wanted)


def test_clients_that_lost_the_same_service_do_not_come_back_at_once() -> None:
    random.seed(1)
    assert len({Policy().delay(4) for _ in range(50)}) > 40


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("3", 3.0), ("-1", 0.0), ("soon", None), (None, None), ("nan", None), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0)],
)
def test_retry_after_is_a_number_or_a_date(value: str | None, seconds: float | None) -> None:
    assert retry_after(value) == seconds


def test_libraries_are_loaded_only_when_they_are_needed() -> None:
    code = (
        "import sys, treadle; assert 'httpx' not in sys.modules; treadle.Client(); assert 'httpx' in sys.modules;"
        "assert not {'numpy', 'pandas', 'pyarrow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def public(kind: type) -> dict[str, list[tuple[str, Any]]]:
    """The methods of a class with names and defaults of their parameters."""
    return {
        name: [(one.name, one.default) for one in inspect.signature(method).parameters.values()]
        for name, method in inspect.getmembers(kind, callable)
        if not name.startswith("_")
    }


@pytest.mark.parametrize(
    ("one", "other"), [(Client, AsyncClient), (Job, AsyncJob), (Client, LocalClient), (Job, LocalJob)]
)
def test_clients_have_the_same_methods_with_the_same_parameters(one: type, other: type) -> None:
    wanted, found = public(one), public(other)
    for only_there in ("local",):
        wanted.pop(only_there, None)
    assert found == wanted
