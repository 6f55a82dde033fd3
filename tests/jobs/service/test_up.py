"""What the commands of an operator say, at the command line: up, down, tokens, certs."""

from __future__ import annotations

import json
import os
import socket
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from typer.testing import CliRunner

from tests.jobs.service.postgres import Postgres
from tests.jobs.service.served import Served, small_spec, until
from treadle.jobs.cli import app

ONE_WORKER = ("--workers", "1")


def said(*command: str | Path, status: int, home: Path | None = None) -> str:
    """What `treadle` printed when it ended with this status; never a traceback."""
    environment = {**os.environ, **({"TREADLE_HOME": str(home)} if home else {})}
    done = subprocess.run(
        [sys.executable, "-m", "treadle", *map(str, command)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    told = done.stdout + done.stderr
    assert done.returncode == status, told
    assert "Traceback" not in told
    assert "bug in Treadle" not in told
    return told


def quickly(*command: str | Path, status: int = 0) -> str:
    """As `said`, in this process: for commands that start nothing. What it printed to stdout, or else to stderr."""
    result = CliRunner().invoke(app, [str(part) for part in command])
    assert result.exit_code == status, result.output
    assert "bug in Treadle" not in result.output
    return result.stderr if status else result.stdout


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = said("up", "--port", str(port), home=tmp_path / "home", status=2)
    assert told == (
        f"treadle: 127.0.0.1:{port} cannot be listened on: Address already in use. Is a service running there already? "
        "--port names another.\n"
    )


def test_a_home_that_another_service_has_is_told(attached: Served) -> None:
    told = said("up", "--port", "0", home=attached.home, status=2)
    assert told == (
        f"treadle: A service runs already with {attached.home} (TREADLE_HOME). `treadle down` ends it; another one "
        "needs another folder.\n"
    )
    assert attached.is_ready()  # and can still be found by `treadle down`
    assert json.loads((attached.home / "service.lock").read_text())["url"] == attached.url


def test_a_database_that_another_service_has_is_told(attached: Served, tmp_path: Path) -> None:
    address = f"sqlite:///{attached.home / 'jobs.db'}"
    told = said("up", "--port", "0", "--database", address, home=tmp_path / "home", status=2)
    assert told == "treadle: database: another service works with it. Stop that one, or name another database.\n"


@pytest.mark.parametrize("command", [["up", "--port", "0"], ["down"], ["tokens", "list"], ["tokens", "add", "ana"]])
def test_a_home_that_cannot_be_used_is_told(tmp_path: Path, command: list[str]) -> None:
    file = tmp_path / "file"
    file.touch()
    for home in (file, file / "below"):
        told = quickly(*command, "--home", home, status=1)
        assert told.startswith(f"treadle: {home} cannot be used (TREADLE_HOME): ")
        assert told.endswith(" --home names another folder.\n")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_home_that_may_not_be_written_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    told = quickly("up", "--port", "0", "--home", tmp_path / "home", status=1)
    assert "cannot be used (TREADLE_HOME): Permission denied." in told


def test_a_setting_with_a_typo_is_told(tmp_path: Path) -> None:
    (tmp_path / "service.yaml").write_text("port: 0\nmax_runing: 4\n")
    told = said("up", "--home", tmp_path, status=2)
    assert told.startswith(
        f"treadle: {tmp_path}/service.yaml: 1 problem\n  line 2, max_runing: unknown key 'max_runing'."
    )
    assert told.endswith("Did you mean 'max_running'?\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["service.yaml"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host", "0.0.0.0"], "certificate and key are needed: `treadle certs DIR` makes some"),
        (["--certificate", "a.pem"], "certificate, key: give both, or neither"),
        (["--certificate", "a.pem", "--key", "b.key"], "a.pem and b.key cannot be used: No such file or directory."),
        (["--host", "nowhere.invalid", "--certificate", "CERT", "--key", "KEY"], "nowhere.invalid:0 cannot be"),
        (["--host", "0.0.0.0", "--certificate", "CERT", "--key", "KEY"], "`treadle tokens add NAME --scope admin`"),
        (["--certificate", "CERT", "--key", "OTHER"], "They are PEM files, and belong together"),
        (["--database", "mysql://ana:s3cret@host/jobs"], "'mysql' is not served. Allowed: [sqlite, postgresql]."),
        (["--database", "postgresql://ana:s3cret@host:port/jobs"], "the address cannot be read"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_kept_are_told(
    tmp_path: Path, certificates: Path, options: list[str], message: str
) -> None:
    files = {"CERT": "service.pem", "KEY": "service.key", "OTHER": "dask.key"}
    given = [str(certificates / files[option]) if option in files else option for option in options]
    told = quickly("up", "--port", "0", "--home", tmp_path / "home", *given, status=2)
    assert message in told
    assert "s3cret" not in told


def test_a_database_that_cannot_be_used_is_told_without_its_password(tmp_path: Path, postgres_server: Postgres) -> None:
    address = postgres_server.address(password="s3cret-word")
    told = quickly("up", "--port", "0", "--home", tmp_path / "home", "--database", address, status=1)
    assert "password authentication failed" in told
    assert "s3cret-word" not in told


def test_down_without_a_service_says_so(tmp_path: Path) -> None:
    assert quickly("down", "--home", tmp_path) == f"no service runs with {tmp_path}\n"
    assert quickly("down", "--home", tmp_path / "none") == f"no service runs with {tmp_path / 'none'}\n"
    assert not (tmp_path / "none").exists()


def test_a_token_is_printed_once_and_listed_by_name(tmp_path: Path) -> None:
    token = quickly("tokens", "add", "ana", "--scope", "admin", "--home", tmp_path).strip()
    assert token.startswith("treadle_")
    document = json.loads(quickly("tokens", "add", "ben", "--json", "--home", tmp_path))
    assert (document["name"], document["scope"]) == ("ben", "submit")
    listed = quickly("tokens", "list", "--home", tmp_path)
    assert [line.split() for line in listed.splitlines()] == [["ana", "admin"], ["ben", "submit"]]
    assert [row["name"] for row in json.loads(quickly("tokens", "list", "--json", "--home", tmp_path))] == [
        "ana",
        "ben",
    ]
    assert token not in listed
    assert quickly("tokens", "remove", "ana", "--home", tmp_path) == "removed the token ana\n"
    assert quickly("tokens", "list", "--home", tmp_path).split() == ["ben", "submit"]


def test_tokens_of_a_database_that_the_service_is_given(tmp_path: Path) -> None:
    where = ["--database", f"sqlite:///{tmp_path / 'other.db'}", "--home", tmp_path / "home"]
    quickly("tokens", "add", "ana", *where)
    assert quickly("tokens", "list", *where).split() == ["ana", "submit"]
    assert quickly("tokens", "list", "--home", tmp_path / "home") == ""
    quickly("tokens", "remove", "ana", *where)
    assert quickly("tokens", "list", *where) == ""


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["add", "ben"], "There is a token 'ben' already; remove it, or give another name."),
        (["add", "ana", "--scope", "amdin"], "'amdin' is not known. Allowed: [read, submit, admin]. Did you"),
        (["add", "a b"], "name: 'a b' cannot be a token's"),
        (["add", "ana", "--days", "1e9"], "days: 1e+09 is not between 0 and 36500"),
        (["remove", "bne"], "There is no token 'bne'. Tokens: [ben]. Did you mean 'ben'?"),
    ],
)  # fmt: skip
def test_tokens_that_cannot_be_are_told(tmp_path: Path, command: list[str], message: str) -> None:
    quickly("tokens", "add", "ben", "--home", tmp_path)
    told = quickly("tokens", *command, "--home", tmp_path, status=2)
    assert message in told
    assert quickly("tokens", "list", "--home", tmp_path).split() == ["ben", "submit"]


def test_the_state_of_a_service_is_closed_to_others(attached: Served) -> None:
    assert stat.S_IMODE(attached.home.stat().st_mode) == 0o700


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certs") / "made"
    hosts = ["localhost", "127.0.0.1", "::1", "train.example.org"]
    printed = quickly("certs", folder, *(part for host in hosts for part in ("--host", host)), "--days", "30")
    assert printed.splitlines() == [
        str(folder / f"{name}.{end}") for name in ("ca", "service", "dask") for end in ("pem", "key")
    ]
    return folder


def read(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_certificates_are_the_authoritys_and_name_the_hosts(certificates: Path) -> None:
    authority = read(certificates / "ca.pem")
    authority.verify_directly_issued_by(authority)
    for name in ("service", "dask"):
        certificate = read(certificates / f"{name}.pem")
        certificate.verify_directly_issued_by(authority)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == ["localhost", "train.example.org"]
        assert [str(one) for one in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
        assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        left = certificate.not_valid_after_utc - datetime.now(UTC)
        assert timedelta(days=29) < left <= timedelta(days=30)
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_keys_can_be_read_by_their_owner_only(certificates: Path) -> None:
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in certificates.iterdir()}
    assert all(mode == 0o600 for name, mode in modes.items() if name.endswith(".key"))
    assert len(modes) == 6
    assert stat.S_IMODE(certificates.stat().st_mode) == 0o700


def shaken(certificates: Path, client: ssl.SSLContext, host: str) -> None:
    """A handshake of this client with a server that has the service's certificate."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificates / "service.pem", certificates / "service.key")
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            with server.wrap_socket(theirs, server_side=True) as connection:
                connection.recv(1)
        except OSError:
            pass

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(ours, server_hostname=host):
            pass
    finally:
        ours.close()
        thread.join()
        theirs.close()


def test_clients_that_know_the_authority_believe_the_service(certificates: Path) -> None:
    client = ssl.create_default_context(cafile=certificates / "ca.pem")
    for host in ("localhost", "127.0.0.1", "::1", "train.example.org"):
        shaken(certificates, client, host)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shaken(certificates, client, "other.example.org")
    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer certificate"):
        shaken(certificates, ssl.create_default_context(), "localhost")


def test_certificates_that_are_there_are_not_replaced(certificates: Path) -> None:
    before = {path: path.read_bytes() for path in certificates.iterdir()}
    told = quickly("certs", certificates, status=2)
    assert told.startswith(f"treadle: {certificates / 'ca.pem'} is there already; name another folder")
    assert {path: path.read_bytes() for path in certificates.iterdir()} == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host", "bad..name"], "host: 'bad..name' is no name or address of a machine."),
        (["--host", ""], "host: '' is no name or address"),
        (["--host", "https://example.org"], "host: 'https://example.org' is no name or address"),
        (["--days", "9999999"], "days: 9999999 is not between 1 and 36500."),
    ],
)
def test_certificates_that_cannot_be_are_told(tmp_path: Path, options: list[str], message: str) -> None:
    assert message in quickly("certs", tmp_path / "made", *options, status=2)
    assert not (tmp_path / "made").exists()


def test_a_folder_for_certificates_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    told = quickly("certs", tmp_path / "file", status=1)
    assert told.startswith(f"treadle: {tmp_path / 'file'} cannot be written to: ")


@pytest.fixture(scope="module")
def guarded(
    tmp_path_factory: pytest.TempPathFactory, certificates: Path, postgres_server: Postgres
) -> Iterator[Served]:
    """A service with HTTPS and tokens, whose jobs are in PostgreSQL."""
    folder = tmp_path_factory.mktemp("guarded")
    one = Served(folder, *ONE_WORKER)
    one.home.mkdir()
    settings = {
        "tokens": True,
        "certificate": str(certificates / "service.pem"),
        "key": str(certificates / "service.key"),
        "database": postgres_server.new_database(),
    }
    (one.home / "service.yaml").write_text(json.dumps(settings))
    token = quickly("tokens", "add", "ana", "--home", one.home).strip()
    one.url = f"https://localhost:{one.port}"
    one.http.close()
    one.http = httpx.Client(
        base_url=one.url,
        verify=ssl.create_default_context(cafile=certificates / "ca.pem"),
        headers={"Authorization": f"Bearer {token}"},
        timeout=90,
    )
    try:
        one.start()
        yield one
    finally:
        one.end()


@pytest.mark.slow
def test_a_service_with_tls_tokens_and_postgresql_does_jobs(guarded: Served) -> None:
    view = guarded.wait(guarded.submit(small_spec("guarded"), submission_id="x"), 150)
    assert (view["state"], view["user"]) == ("succeeded", "ana")
    assert not (guarded.home / "jobs.db").exists()
    guarded.http.headers.pop("Authorization")
    assert guarded.http.get("/v1/jobs").status_code == 401


@pytest.mark.slow
def test_a_postgresql_database_that_another_service_has_is_told(guarded: Served, tmp_path: Path) -> None:
    address = json.loads((guarded.home / "service.yaml").read_text())["database"]
    told = quickly("up", "--port", "0", "--home", tmp_path, "--database", address, status=2)
    assert told == "treadle: database: another service works with it. Stop that one, or name another database.\n"


@pytest.mark.slow
def test_down_ends_the_service_and_its_cluster(tmp_path: Path) -> None:
    one = Served(tmp_path, *ONE_WORKER)
    try:
        one.start()
        assert one.process is not None
        assert said("down", home=one.home, status=0) == f"stopped the service of {one.home}\n"
        until(lambda: one.process is not None and one.process.poll() is not None, 10)
        assert one.process.returncode == 0
        assert said("down", home=one.home, status=0) == f"no service runs with {one.home}\n"
    finally:
        one.end()
