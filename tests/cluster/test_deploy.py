"""The files of cluster/deploy: each is parsed by what will read it, and names only what there is."""

from __future__ import annotations

import inspect
import json
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import typer
from ruamel.yaml import YAML

from treadle.jobs import loading
from treadle.jobs.cli import app
from treadle.jobs.service.settings import DATABASE, Settings

DEPLOY = Path(__file__).resolve().parents[2] / "cluster" / "deploy"
UNIT = DEPLOY / "systemd" / "treadle.service"
MANIFEST = DEPLOY / "kubernetes" / "treadle.yaml"
SCRIPT = DEPLOY / "slurm" / "treadle.sbatch"
IMAGE = DEPLOY / "Containerfile"
COMMAND: Any = typer.main.get_command(app)
ENVIRONMENT = {"TREADLE_HOME", DATABASE, "NUMBA_CACHE_DIR", "TMPDIR", "HOME"}
"""Variables that something reads."""


def parsed(line: str) -> dict[str, Any]:
    """What a command `treadle ...` is called with; raises when it or an option does not exist."""
    command, words = COMMAND, shlex.split(line, comments=True)[1:]
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    assert not hasattr(command, "commands"), f"'{line}' is no command"
    with command.make_context(command.name, words) as context:
        return dict(context.params)


def settings_of(line: str) -> Settings:
    """What a command `treadle up ...` would serve with."""
    names = {"allow_root": "allow_roots"}
    given = {names.get(name, name): value for name, value in parsed(line).items() if value is not None}
    return loading.load({name: value for name, value in given.items() if name in Settings.model_fields}, Settings)


def comments(path: Path) -> list[str]:
    """Commands in the head of a file."""
    return re.findall(r"^# +(treadle .+)$", path.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.fixture(scope="module")
def unit() -> dict[str, dict[str, list[str]]]:
    """Sections, keys and all values that a key has."""
    found: dict[str, dict[str, list[str]]] = {}
    for line in UNIT.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = found.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            section.setdefault(key, []).append(value)
    return found


def test_the_unit_starts_commands_that_exist_and_names_variables_that_are_read(
    unit: dict[str, dict[str, list[str]]],
) -> None:
    service = unit["Service"]
    for line in (*service["ExecStart"], *service["ExecStartPre"]):
        parsed(line)
    assert {value.partition("=")[0] for value in service["Environment"]} <= ENVIRONMENT


def test_the_unit_leaves_drivers_alone_and_lets_the_service_do_little_else(
    unit: dict[str, dict[str, list[str]]],
) -> None:
    service = {key: values[-1] for key, values in unit["Service"].items()}
    assert (service["KillMode"], service["Restart"], service["OOMPolicy"]) == ("process", "on-failure", "continue")
    assert service["ProtectSystem"] == "strict"
    assert service["User"] != "root"
    assert service["NoNewPrivileges"] == "yes"
    assert "treadle/home" in service["StateDirectory"].split()
    # Jobs may read the working folder, so the service's own must not be in it.
    assert not service["Environment"].endswith(service["WorkingDirectory"])
    assert service["WorkingDirectory"] == "%S/treadle/work"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_finds_no_fault_with_the_unit(tmp_path: Path) -> None:
    copy = tmp_path / "treadle.service"
    copy.write_text(UNIT.read_text(encoding="utf-8").replace("/opt/treadle/bin/treadle", "/bin/true"), encoding="utf-8")
    done = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    copy.write_text(copy.read_text(encoding="utf-8").replace("OOMPolicy=continue", "OOMPolicy=go-on"), encoding="utf-8")
    done = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True, check=False)
    assert "OOM policy" in done.stderr, "it would have found one"


@pytest.fixture(scope="module")
def manifest() -> list[dict[str, Any]]:
    return list(YAML(typ="safe").load_all(MANIFEST.read_text(encoding="utf-8")))


def only(manifest: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = [document for document in manifest if document["kind"] == kind]
    return found


KINDS = {
    "Secret": "V1Secret",
    "ServiceAccount": "V1ServiceAccount",
    "Service": "V1Service",
    "NetworkPolicy": "V1NetworkPolicy",
    "StatefulSet": "V1StatefulSet",
}


def test_kubernetes_knows_every_key_of_the_manifest(manifest: list[dict[str, Any]]) -> None:
    kubernetes = pytest.importorskip("kubernetes")
    client = kubernetes.client.ApiClient()

    def understood(document: dict[str, Any]) -> Any:
        """What is left of a document when Kubernetes' models have read it: keys that they do not know are not."""
        text, kind = json.dumps(document), KINDS[document["kind"]]
        # Before its version 37 the client takes a response, which knows what it is.
        is_old = "response" in inspect.signature(client.deserialize).parameters
        arguments = (SimpleNamespace(data=text), kind) if is_old else (text, kind, "application/json")
        return client.sanitize_for_serialization(client.deserialize(*arguments))

    for document in manifest:
        assert understood(document) == document
    wrong = json.loads(json.dumps(only(manifest, "StatefulSet")).replace("readinessProbe", "readynessProbe"))
    assert understood(wrong) != wrong


def test_the_pod_serves_with_tls_and_tokens_on_the_port_that_is_probed(manifest: list[dict[str, Any]]) -> None:
    pod = only(manifest, "StatefulSet")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    settings = settings_of(shlex.join([*container["command"], *container["args"]]))
    assert settings.needs_tokens
    assert settings.certificate is not None
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    (service_port,) = only(manifest, "Service")["spec"]["ports"]
    assert ports[service_port["targetPort"]] == settings.port == service_port["port"]
    for probe in ("startupProbe", "readinessProbe"):
        assert container[probe]["httpGet"] == {"path": "/health", "port": "https", "scheme": "HTTPS"}
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    files = (settings.certificate, settings.key, *settings.allowed, settings.root)
    assert all(any(str(file).startswith(f"{mount}/") for mount in mounts) for file in files)
    home = next(one["value"] for one in container["env"] if one["name"] == "TREADLE_HOME")
    assert not any(home.startswith(root) for root in settings.allowed), "jobs could read the service's own files"
    assert {one["name"] for one in container["env"]} <= ENVIRONMENT


def test_the_pod_has_one_replica_a_volume_and_no_privileges(manifest: list[dict[str, Any]]) -> None:
    stateful = only(manifest, "StatefulSet")["spec"]
    pod = stateful["template"]["spec"]
    assert stateful["replicas"] == 1
    assert stateful["volumeClaimTemplates"]
    assert pod["securityContext"]["runAsNonRoot"]
    uid = re.search(r"--uid (\d+)", IMAGE.read_text(encoding="utf-8"))
    assert uid
    assert int(uid[1]) == pod["securityContext"]["runAsUser"]
    for container in (*pod["containers"], *pod["initContainers"]):
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert not container["securityContext"]["allowPrivilegeEscalation"]
        assert container["resources"]["limits"]["memory"]
        database = next(one for one in container["env"] if one["name"] == DATABASE)
        assert database["valueFrom"]["secretKeyRef"]["key"] in only(manifest, "Secret")["stringData"]


def test_the_commands_of_the_manifest_and_of_the_image_exist(manifest: list[dict[str, Any]]) -> None:
    (first,) = only(manifest, "StatefulSet")["spec"]["template"]["spec"]["initContainers"]
    lines = re.findall(r"treadle (?:warmup|tokens [a-z]+[^>)\n]*)", first["args"][0])
    assert len(lines) == 3
    for line in (*lines, *comments(MANIFEST)):
        parsed(line)
    words = dict(re.findall(r"^(ENTRYPOINT|CMD) (.+)$", IMAGE.read_text(encoding="utf-8"), re.MULTILINE))
    parsed(shlex.join([*json.loads(words["ENTRYPOINT"]), *json.loads(words["CMD"])]))


def test_the_image_copies_what_there_is() -> None:
    root = DEPLOY.parents[1]
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", IMAGE.read_text(encoding="utf-8"), re.MULTILINE)
    sources = [source for line in copied for source in line.split()]
    assert {"treadle", "jobs", "engine", "kernels", "cluster", "benchmarks", "pyproject.toml"} <= set(sources)
    assert all((root / source).exists() for source in sources)


def commands(script: str, program: str) -> Iterator[str]:
    """The calls of a program in a script, in one line each and with something for variables."""
    joined = re.sub(r"\\\n\s*", "", script)
    for line in joined.splitlines():
        found = re.search(rf"(?<![\w/#-]){program} (?!\$)[a-z][^&|>)]*", line)
        if found and not line.lstrip().startswith("#"):
            yield re.sub(r'"?\$\{?[\w@\[\]:/-]+\}?"?', "1", found[0])


def test_the_slurm_script_is_bash_and_its_commands_exist() -> None:
    text = SCRIPT.read_text(encoding="utf-8")
    subprocess.run(["bash", "-n", SCRIPT], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", SCRIPT], check=True)
    called = list(commands(text, "treadle"))
    assert {line.split()[1] for line in called} == {"certs", "tokens", "up"}
    for line in called:
        parsed(line)
    for line in commands(text, "dask"):
        name = line.split()[1]
        known = subprocess.run(
            [sys.executable, "-m", "dask", name, "--help"], capture_output=True, text=True, check=True
        )
        options = [word for word in line.split() if word.startswith("--")]
        assert options
        assert all(option in known.stdout for option in options), line


def test_the_settings_that_the_slurm_script_writes_are_some() -> None:
    text = re.search(r"<< END\n(.+)\nEND\n", SCRIPT.read_text(encoding="utf-8"), re.DOTALL)
    assert text
    written = text[1].replace("$address", "tls://10.0.0.1:8786").replace("$certs", "/shared/certs")
    settings = loading.load(YAML(typ="safe").load(written), Settings)
    assert settings.needs_tokens
    assert settings.attached() is not None


@pytest.mark.slow
def test_the_slurm_script_serves_and_goes_on_when_it_is_submitted_again(tmp_path: Path) -> None:
    """On one node, where srun starts its command once."""
    tools = tmp_path / "bin"
    tools.mkdir()
    srun = '#!/bin/bash\nwhile [[ $1 == --* ]]; do shift; done\nexec "$@"\n'
    for name, text in {
        "srun": srun,
        "treadle": f'#!/bin/bash\nexec {sys.executable} -m treadle "$@"\n',
        "dask": f'#!/bin/bash\nexec {sys.executable} -m dask "$@"\n',
        "hostname": "#!/bin/bash\necho 127.0.0.1\n",
        "python": f'#!/bin/bash\nexec {sys.executable} "$@"\n',
    }.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home = tmp_path / "home"
    environment = {
        "PATH": f"{tools}:/usr/bin:/bin",
        "PYTHONPATH": str(DEPLOY.parents[1]),
        "TREADLE_HOME": str(home),
        "TREADLE_ROOT": str(tmp_path / "artifacts"),
        "TREADLE_PORT": str(port),
        "SLURM_JOB_ID": "1",
        "SLURM_CPUS_PER_TASK": "1",
        "HOME": str(tmp_path),
    }
    jobs = []
    for turn in range(2):
        with open(tmp_path / f"{turn}.log", "wb") as log:
            process = subprocess.Popen(["bash", SCRIPT], env=environment, stdout=log, stderr=log, cwd=tmp_path)
        try:
            jobs.append(_job_done(f"http://127.0.0.1:{port}", home / "admin.token"))
        finally:
            process.terminate()
            status = process.wait(60)
        assert status == 0, (tmp_path / f"{turn}.log").read_text()
    assert [len(known) for known in jobs] == [1, 2]
    assert (home / "admin.token").stat().st_mode & 0o077 == 0


def _job_done(url: str, token: Path) -> list[str]:
    """Has a job done, and tells the ids of all that the service knows."""
    spec = {
        "apiVersion": "treadle/v1",
        "name": "small",
        "data": {"path": "sklearn://iris", "target": "target"},
        "split": {"kind": "random"},
        "models": ["decision_tree"],
    }
    deadline = time.monotonic() + 120
    while True:
        try:
            if httpx.get(f"{url}/health").status_code == 200:
                break
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert httpx.get(f"{url}/v1/jobs").status_code == 401
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token.read_text().strip()}"}) as client:
        job = client.post("/v1/jobs", json={"spec": spec}).json()["id"]
        while (state := client.get(f"/v1/jobs/{job}/wait", timeout=90).json()["state"]) in ("queued", "running"):
            assert time.monotonic() < deadline
        assert state == "succeeded", client.get(f"/v1/jobs/{job}/logs").text
        return [one["id"] for one in client.get("/v1/jobs").json()["jobs"]]
