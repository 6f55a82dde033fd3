"""Nobody gets more of a service than is theirs: who may do what, what is kept out, and what is never told."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute, iter_route_contexts
from typer.testing import CliRunner

from tests.jobs.service.inside import Inside, inside
from tests.jobs.service.served import Served, raw, served, small_spec
from treadle.cluster.certificates import make_certificates
from treadle.errors import RequestError
from treadle.jobs.cli import app
from treadle.jobs.service.access import Scope
from treadle.jobs.service.database import open_database
from treadle.jobs.service.settings import load_settings

SPEC = small_spec()
ROUTES: dict[tuple[str, str], tuple[Scope | None, dict[str, Any]]] = {
    ("GET", "/"): (None, {}),
    ("HEAD", "/"): (None, {}),
    ("GET", "/page/{name}"): (None, {}),
    ("HEAD", "/page/{name}"): (None, {}),
    ("GET", "/health"): (None, {}),
    ("GET", "/metrics"): (Scope.READ, {}),
    ("POST", "/v1/jobs"): (Scope.SUBMIT, {"json": {"spec": SPEC}}),
    ("GET", "/v1/jobs"): (Scope.READ, {}),
    ("GET", "/v1/jobs/{job}"): (Scope.READ, {}),
    ("POST", "/v1/plan"): (Scope.SUBMIT, {"json": {"spec": SPEC}}),
    ("POST", "/v1/jobs/{job}/cancel"): (Scope.SUBMIT, {}),
    ("POST", "/v1/jobs/{job}/retry"): (Scope.SUBMIT, {}),
    ("GET", "/v1/jobs/{job}/wait"): (Scope.READ, {"params": {"timeout": 0}}),
    ("GET", "/v1/jobs/{job}/logs"): (Scope.READ, {}),
    ("GET", "/v1/jobs/{job}/events"): (Scope.READ, {"params": {"follow": "false"}}),
    ("GET", "/v1/jobs/{job}/manifest"): (Scope.READ, {}),
    ("GET", "/v1/jobs/{job}/artifacts"): (Scope.READ, {}),
    ("GET", "/v1/jobs/{job}/artifacts/{name:path}"): (Scope.READ, {}),
    ("GET", "/v1/jobs/{job}/tables/{name}"): (Scope.READ, {}),
    ("GET", "/v1/schedules"): (Scope.READ, {}),
    ("PUT", "/v1/schedules/{name}"): (Scope.SUBMIT, {"json": {"name": "name", "cron": "0 6 * * *", "spec": SPEC}}),
    ("DELETE", "/v1/schedules/{name}"): (Scope.SUBMIT, {}),
    ("GET", "/v1/cluster"): (Scope.READ, {}),
    ("GET", "/v1/audit"): (Scope.ADMIN, {}),
}
"""What each route needs, and a request that is whole."""
OPEN = {"/v1/openapi.json"}
"""Needs no token: it is the same for everybody."""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    with inside(tmp_path_factory.mktemp("guarded"), tokens=True) as one:
        yield one


@pytest.fixture(scope="module")
def tokens(guarded: Inside) -> dict[Scope, str]:
    return {scope: guarded.service.access.add(scope.name.lower(), scope) for scope in Scope}


@pytest.fixture
def open_one(tmp_path: Path) -> Iterator[Inside]:
    with inside(tmp_path) as one:
        yield one


def test_tokens_come_and_go_while_a_service_runs(guarded: Inside) -> None:
    """By the command, which knows of the service no more than its folder."""

    def tokens(*command: str) -> str:
        where = ["--home", str(guarded.service.home)]
        result = CliRunner().invoke(app, ["tokens", *command, *where])
        assert result.exit_code == 0, result.output
        return result.stdout.strip()

    token = tokens("add", "eva", "--scope", "admin")
    assert guarded.ask("GET", "/v1/audit", headers=bearer(token)).status_code == 200
    tokens("remove", "eva")
    assert guarded.ask("GET", "/v1/audit", headers=bearer(token)).status_code == 401


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_every_route_says_what_it_needs(guarded: Inside) -> None:
    there = set()
    for found in iter_route_contexts(guarded.app.routes):
        if isinstance(found.original_route, APIRoute):
            there |= {(method, found.path) for method in found.methods or ()}
        else:
            assert found.path in OPEN
    assert there == set(ROUTES)


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_scopes_open_their_routes_and_no_others(
    guarded: Inside, tokens: dict[Scope, str], method: str, path: str
) -> None:
    needs, how = ROUTES[method, path]
    asked = path.replace("{job}", "job").replace("{name}", "name").replace("{name:path}", "name")
    assert (guarded.ask(method, asked, **how).status_code == 401) == (needs is not None)
    wrong = guarded.ask(method, asked, headers=bearer("treadle_wrong"), **how)
    assert (wrong.status_code == 401) == (needs is not None)
    for scope, token in tokens.items():
        answer = guarded.ask(method, asked, headers=bearer(token), **how)
        refused = needs is not None and scope < needs
        assert (answer.status_code == 403) == refused, answer.text
        assert answer.status_code != 401
        if refused:
            entry = guarded.service.access.noted(1)[0][0]
            assert (entry["user"], entry["action"]) == (scope.name.lower(), "refused")


@pytest.mark.parametrize("header", ["Basic dTpw", "Bearer", "Bearer ", "bearer  x", "treadle_x", "Bearer \xff", ""])
def test_what_is_no_token_is_none(guarded: Inside, header: str) -> None:
    answer = guarded.ask("GET", "/v1/jobs", headers=[(b"Authorization", header.encode("latin-1"))])
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_removed_and_expired_tokens_are_refused_and_only_digests_are_kept(guarded: Inside) -> None:
    access = guarded.service.access
    token = access.add("short-lived", Scope.READ, days=0.5 / 86400)
    assert guarded.ask("GET", "/v1/jobs", headers=bearer(token)).status_code == 200
    time.sleep(0.6)
    assert guarded.ask("GET", "/v1/jobs", headers=bearer(token)).status_code == 401
    other = access.add("removed", Scope.READ)
    access.remove("removed")
    refused = guarded.ask("GET", "/v1/jobs", headers=bearer(other))
    assert refused.status_code == 401
    assert other not in refused.text
    for path in guarded.service.home.rglob("*"):
        if path.is_file():
            assert token.encode() not in path.read_bytes()
            assert other.encode() not in path.read_bytes()


def test_the_audit_log_tells_who_did_what(guarded: Inside, tokens: dict[Scope, str]) -> None:
    submit, read, admin = (bearer(tokens[scope]) for scope in (Scope.SUBMIT, Scope.READ, Scope.ADMIN))
    job = guarded.ask("POST", "/v1/jobs", headers=submit, json={"spec": small_spec("audited")}).json()["id"]
    guarded.ask("POST", f"/v1/jobs/{job}/cancel", headers=submit)
    guarded.ask("POST", f"/v1/jobs/{job}/retry", headers=admin)
    guarded.ask("POST", f"/v1/jobs/{job}/cancel", headers=read)
    outside = small_spec(data={"path": "/etc/passwd", "target": "x"})
    guarded.ask("POST", "/v1/jobs", headers=submit, json={"spec": outside})
    guarded.ask("GET", "/v1/audit", headers=bearer("treadle_wrong"))
    entries = guarded.ask("GET", "/v1/audit", headers=admin).json()["entries"]
    told = [(entry["user"], entry["action"], entry["subject"]) for entry in entries[:6]]
    assert told == [
        ("", "refused", "/v1/audit"),
        ("submit", "refused", "/v1/jobs"),
        ("read", "refused", f"/v1/jobs/{job}/cancel"),
        ("admin", "retry", job),
        ("submit", "cancel", job),
        ("submit", "submit", job),
    ]
    assert all(
        datetime.now(UTC) - datetime.fromisoformat(entry["time"]) < timedelta(minutes=5) for entry in entries[:6]
    )


def test_a_replayed_submission_is_the_same_job(open_one: Inside) -> None:
    body = {"spec": SPEC, "submission_id": "once"}
    first = open_one.ask("POST", "/v1/jobs", json=body)
    again = open_one.ask("POST", "/v1/jobs", json=body)
    other = open_one.ask("POST", "/v1/jobs", json={**body, "priority": 1})
    assert (first.status_code, again.status_code, other.status_code) == (201, 200, 409)
    assert first.json() == again.json()
    assert open_one.jobs == 1


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "127.0.0.1@evil.example", "[::1", "", "10.0.0.1"]
)
def test_names_that_another_site_chose_for_this_machine_are_refused(open_one: Inside, host: str) -> None:
    for method, path in (("GET", "/v1/jobs"), ("GET", "/health"), ("POST", "/v1/jobs")):
        assert open_one.ask(method, path, headers={"Host": host}).status_code == 400


@pytest.mark.parametrize("host", ["localhost", "localhost:8844", "127.0.0.1:8844", "[::1]:8844", "127.0.0.2"])
def test_names_of_this_machine_are_served(open_one: Inside, host: str) -> None:
    assert open_one.ask("GET", "/v1/jobs", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:1", "https://[", "http://127.0.0.1:8844.evil.example"]
)
def test_pages_of_other_sites_may_not_do_anything(open_one: Inside, origin: str) -> None:
    for method, path in (("POST", "/v1/jobs"), ("PUT", "/v1/schedules/a"), ("DELETE", "/v1/schedules/a")):
        assert open_one.ask(method, path, headers={"Origin": origin}).status_code == 403
    seen = open_one.ask("GET", "/v1/jobs", headers={"Origin": origin})
    assert not any(name.startswith("access-control") for name in seen.headers)


def test_strangers_learn_of_health_only_whether_it_is_well(guarded: Inside) -> None:
    answer = guarded.ask("GET", "/health")
    assert answer.status_code == 503
    assert str(guarded.service.home) not in answer.text


def test_the_services_own_page_may(open_one: Inside) -> None:
    answer = open_one.ask("POST", "/v1/jobs", headers={"Origin": "http://127.0.0.1:8844"}, json={"spec": SPEC})
    assert answer.status_code == 201


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "json"])
def test_bodies_that_forms_send_are_refused(open_one: Inside, kind: str) -> None:
    answer = open_one.ask("POST", "/v1/jobs", content=json.dumps({"spec": SPEC}), headers={"Content-Type": kind})
    assert answer.status_code == 415
    assert open_one.jobs == 0


ESCAPES = (
    "..%2f..%2fhome%2fjobs.db",
    "%2e%2e/%2e%2e/home/jobs.db",
    "..%5c..%5chome",
    "%2fetc%2fpasswd",
    "%00",
    "manifest.json%00.txt",
    "..",
    "%c0%ae%c0%ae%2fx",
    "file%3a%2f%2f%2fetc%2fpasswd",
)


@pytest.mark.parametrize("name", ESCAPES)
def test_names_do_not_lead_out_of_a_run(service: Served, done: str, name: str) -> None:
    for path in (f"/v1/jobs/{done}/artifacts/{name}", f"/v1/jobs/{done}/tables/{name}", f"/v1/jobs/{name}",
                 f"/v1/jobs/{name}/logs", f"/v1/jobs/{name}/artifacts/manifest.json"):  # fmt: skip
        answer = raw(service.port, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        assert answer.split()[1] in (b"404", b"422"), (path, answer[:300])
        assert b"root:" not in answer


def test_links_in_a_run_are_not_followed_out(service: Served, done: str) -> None:
    (service.folder / "artifacts" / "runs" / done / "link.txt").symlink_to("/etc/passwd")
    answer = service.http.get(f"/v1/jobs/{done}/artifacts/link.txt")
    assert answer.status_code in (403, 404)
    assert "root:" not in answer.text


def test_downloads_are_downloads(service: Served, done: str) -> None:
    answer = service.http.get(f"/v1/jobs/{done}/artifacts/manifest.json")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Disposition"] == "attachment"
    assert answer.headers["Content-Type"] == "application/octet-stream"
    for path in (f"/v1/jobs/{done}/logs", "/metrics", "/nobody"):
        assert service.http.get(path).headers["X-Content-Type-Options"] == "nosniff"
    part = service.http.get(f"/v1/jobs/{done}/artifacts/manifest.json", headers={"Range": "bytes=0-9"})
    assert (part.status_code, len(part.content)) == (206, 10)


@pytest.mark.parametrize("query", ["offset=9007199254740992", "offset=1e9", "offset=-1"])
def test_far_offsets_of_a_log_are_clean_answers(service: Served, done: str, query: str) -> None:
    answer = service.http.get(f"/v1/jobs/{done}/logs?{query}")
    assert answer.status_code in (200, 422)


@pytest.mark.parametrize("last", ["9" * 15 + "-1", "9" * 60 + "-1", "1-" + "9" * 60, "-", "x-y", "1"])
def test_far_positions_of_events_are_clean_answers(service: Served, done: str, last: str) -> None:
    answer = service.http.get(f"/v1/jobs/{done}/events", headers={"Last-Event-ID": last})
    assert answer.status_code in (200, 422)


SECRET = "hunter2-of-the-environment"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, scheduler: str) -> Iterator[Served]:
    """Real, with secrets in its environment, and a umask that hides nothing."""
    folder = tmp_path_factory.mktemp("service")
    secrets = {"AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": SECRET, "PGPASSWORD": SECRET}
    before = os.umask(0)
    try:
        with served(folder, "--scheduler", scheduler, environment=secrets) as one:
            yield one
    finally:
        os.umask(before)


@pytest.fixture(scope="module")
def done(service: Served) -> str:
    job = service.submit(small_spec("done"))
    assert service.wait(job, 120)["state"] == "succeeded"
    return job


def test_state_is_private_whatever_the_umask(service: Served, done: str) -> None:
    assert stat.S_IMODE(service.home.stat().st_mode) == 0o700
    found = list(service.home.rglob("*"))
    names = {path.name for path in found}
    assert {"jobs.db", "service.lock", "nursery.log", "order.json", "log.txt", "events.jsonl", "outcome.json"} <= names
    for path in found:
        mode = path.lstat().st_mode
        if not stat.S_ISSOCK(mode):
            assert stat.S_IMODE(mode) & 0o077 == 0, f"{path} is {stat.filemode(mode)}"


def test_secrets_of_the_environment_are_nowhere(service: Served, done: str) -> None:
    for folder in (service.home, service.folder / "artifacts"):
        files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
        assert len(files) > 3
        for path in files:
            assert SECRET.encode() not in path.read_bytes(), path
    assert SECRET not in service.said
    paths = ["/health", "/metrics", "/v1/jobs", "/v1/cluster", "/v1/audit", "/nobody", f"/v1/jobs/{done}"]
    paths += [f"/v1/jobs/{done}/{part}" for part in ("manifest", "logs", "events", "artifacts")]
    for path in paths:
        assert SECRET not in service.http.get(path).text, path


def test_passwords_of_databases_are_not_told(tmp_path: Path) -> None:
    said = refused_start(tmp_path, "--database", "postgresql://user:hunter2@127.0.0.1:1/x")
    assert "The job store cannot be used" in said
    assert "hunter2" not in said
    for address in ("postgresql://user:hunter2@127.0.0.1:port/x", "mysql://user:hunter2@host/x", "hunter2"):
        with pytest.raises(RequestError, match="^database: ") as refusal:
            open_database(address)
        assert "hunter2" not in str(refusal.value)


def refused_start(folder: Path, *options: str) -> str:
    """What `treadle up` says when it does not start."""
    command = [sys.executable, "-m", "treadle", "up", "--port", "0", *options]
    environment = {**os.environ, "TREADLE_HOME": str(folder / "home")}
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode in (1, 2), ended
    assert "Traceback" not in ended.stderr
    return ended.stdout + ended.stderr


@pytest.fixture(scope="module")
def address() -> str:
    """This machine's own, by which others reach it."""
    said = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=False).stdout.split()
    own = [one for one in said if "." in one and not one.startswith("127.")]
    if not own:
        pytest.skip("this machine has no address but loopback's")
    return own[0]


def test_off_loopback_it_needs_tls_and_tokens(tmp_path: Path, address: str) -> None:
    for host in (address, "0.0.0.0", "::", "example.org"):
        with pytest.raises(RequestError, match="certificate and key are needed"):
            load_settings(tmp_path, {"host": host})
    make_certificates(tmp_path / "certs", [address], 2)
    tls = ("--certificate", "certs/service.pem", "--key", "certs/service.key")
    assert "needs tokens" in refused_start(tmp_path, "--host", address, *tls)
    assert not (tmp_path / "home" / "cluster" / "cluster.json").exists()


@pytest.mark.slow
def test_off_loopback_it_serves_who_has_a_token(tmp_path: Path, address: str) -> None:
    import ssl

    certs = [sys.executable, "-m", "treadle", "certs", "certs", "--host", address]
    subprocess.run(certs, cwd=tmp_path, check=True, capture_output=True)
    home = str(tmp_path / "home")
    add = [sys.executable, "-m", "treadle", "tokens", "add", "me", "--home", home]
    token = subprocess.run(add, check=True, capture_output=True, text=True).stdout.strip()
    tls = ("--certificate", "certs/service.pem", "--key", "certs/service.key")
    one = Served(tmp_path, "--host", address, *tls, "--workers", "1")
    context = ssl.create_default_context(cafile=str(tmp_path / "certs" / "ca.pem"))
    one.http = httpx.Client(base_url=f"https://{address}:{one.port}", verify=context, timeout=60)
    try:
        one.start()
        assert one.http.get("/v1/jobs").status_code == 401
        assert one.http.post("/v1/jobs", json={"spec": SPEC}, headers=bearer(token)).status_code == 201
        # Its own key lies in the folder that jobs may use, and is none of theirs.
        key = small_spec(data={"path": "certs/service.key", "format": "csv", "target": "x"})
        assert one.http.post("/v1/jobs", json={"spec": key}, headers=bearer(token)).status_code == 403
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://{address}:{one.port}/health")
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"https://{address}:{one.port}/health")
    finally:
        one.end()
