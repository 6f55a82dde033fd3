"""How a service is set up: its file, its flags, and all that is wrong with them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from treadle.cluster.profiles import Attached, Local
from treadle.errors import RequestError
from treadle.jobs.problems import SpecError
from treadle.jobs.service.settings import PORT, Settings, home, load_settings

TLS = {"certificate": "service.pem", "key": "service.key"}


def written(folder: Path, text: str) -> Path:
    (folder / "service.yaml").write_text(text)
    return folder


def mistakes(folder: Path, given: dict[str, Any]) -> dict[str, str]:
    """What is wrong, by key."""
    with pytest.raises(SpecError) as told:
        load_settings(folder, given)
    return {problem.path: problem.message for problem in told.value.problems}


@pytest.mark.parametrize("text", [None, "", "# all as it is\n", "---\n"])
def test_without_a_file_or_with_an_empty_one_all_is_as_it_comes(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        written(tmp_path, text)
    found = load_settings(tmp_path, {})
    assert found == Settings()
    assert (found.url, found.needs_tokens, found.cluster) == (f"http://127.0.0.1:{PORT}", False, Local())
    assert found.allowed == (os.getcwd(),)


def test_the_file_counts_and_the_command_line_counts_more(tmp_path: Path) -> None:
    text = "port: 1234\nmax_running: 7\nallow_roots: [/data, s3://bucket]\ncluster: {profile: local, workers: 3}\n"
    found = load_settings(written(tmp_path, text), {"port": 0, "retries": 5})
    assert (found.port, found.retries, found.max_running) == (0, 5, 7)
    assert found.allowed == ("/data", "s3://bucket")
    assert found.cluster == Local(workers=3)
    assert found.attached() is None
    attached = {"profile": "address", "address": "tcp://127.0.0.1:8786"}
    other = load_settings(tmp_path, {"cluster": attached})
    assert other.cluster == other.attached() == Attached(profile="address", address="tcp://127.0.0.1:8786")


def test_all_mistakes_are_told_at_once_wherever_they_are(tmp_path: Path) -> None:
    text = "max_runing: 3\nport: 99999\nretries: many\nsilence: -1\ncluster: {profile: locl}\n"
    found = mistakes(written(tmp_path, text), {"max_running": 0, "port": 70000})
    assert set(found) == {"max_runing", "port", "retries", "silence", "cluster.profile", "max_running"}
    assert "Did you mean 'max_running'?" in found["max_runing"]
    assert found["port"] == "70000 is not allowed; it must be 65535 or less"
    assert "Did you mean 'local'?" in found["cluster.profile"]


def test_mistakes_have_the_line_of_the_file_and_none_of_the_command_line(tmp_path: Path) -> None:
    written(tmp_path, "host: 127.0.0.1\nport: 99999\n")
    with pytest.raises(SpecError, match=f"^{tmp_path}/service.yaml: 1 problem\n  line 2, port: 99999"):
        load_settings(tmp_path, {})
    with pytest.raises(SpecError, match=f"^{tmp_path}/service.yaml: 1 problem\n  port: 70000"):
        load_settings(tmp_path, {"port": 70000})


def test_a_mistake_that_the_command_line_replaces_is_none(tmp_path: Path) -> None:
    written(tmp_path, "host: 0.0.0.0\nport: 99999\n")
    assert load_settings(tmp_path, {"port": 1, **TLS}).url == "https://0.0.0.0:1"
    assert load_settings(tmp_path, {"port": 1, "host": "::1"}).url == "http://[::1]:1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("port: 1\nport: 2\n", "the key 'port' is given twice, on lines 1 and 2"),
        ("- port\n", "is a list; it must be a mapping"),
        ("port: [\n", "not valid YAML"),
        ("host: !!python/object:os.system x\n", "is not allowed"),
    ],
)
def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RequestError) as told:
        load_settings(written(tmp_path, text), {})
    assert message in str(told.value)
    assert str(tmp_path / "service.yaml") in str(told.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "2001:db8::1", "example.org"])
def test_a_host_that_others_reach_needs_a_certificate_and_then_tokens(tmp_path: Path, host: str) -> None:
    with pytest.raises(SpecError) as told:
        load_settings(tmp_path, {"host": host})
    remedy = "can be reached from other machines, so certificate and key are needed: `treadle certs DIR` makes some"
    assert f"host: {host} {remedy}" in str(told.value)
    assert load_settings(tmp_path, {"host": host, **TLS}).needs_tokens


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.8.8"])
def test_loopback_needs_neither_unless_tokens_are_asked_for(tmp_path: Path, host: str) -> None:
    assert not load_settings(tmp_path, {"host": host}).needs_tokens
    assert load_settings(tmp_path, {"host": host, "tokens": True}).needs_tokens


@pytest.mark.parametrize("alone", ["certificate", "key"])
def test_a_certificate_needs_its_key_and_a_key_its_certificate(tmp_path: Path, alone: str) -> None:
    with pytest.raises(SpecError, match="certificate, key: give both, or neither"):
        load_settings(tmp_path, {alone: "file.pem"})


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({}, f"http://127.0.0.1:{PORT}"),
        ({"port": 1}, "http://127.0.0.1:1"),
        ({"host": "::1", "port": 1}, "http://[::1]:1"),
        ({"host": "localhost", **TLS}, f"https://localhost:{PORT}"),
        ({"host": "2001:db8::1", "port": 443, **TLS}, "https://[2001:db8::1]:443"),
    ],
)
def test_the_address_for_clients_on_this_machine(given: dict[str, Any], url: str) -> None:
    assert Settings(**given).url == url


def test_the_home_is_the_one_given_else_the_variables_else_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("TREADLE_HOME", "~/variable")
    monkeypatch.chdir(tmp_path)
    assert home("given") == tmp_path / "given"
    assert home("~/given") == tmp_path / "user" / "given"
    assert home() == tmp_path / "user" / "variable"
    monkeypatch.setenv("TREADLE_HOME", "")
    assert home() == tmp_path / "user" / ".treadle"
    monkeypatch.delenv("TREADLE_HOME")
    assert home() == tmp_path / "user" / ".treadle"
