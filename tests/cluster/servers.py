"""Real services on loopback for tests of what connects to them: an SSH server, a Slurm cluster, a Dask Gateway.

Each runs from configuration in a folder that the test gives, on ports that were free, and is gone at the end.
"""

from __future__ import annotations

import http.client
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

LOOPBACK = "127.0.0.1"
MARK = "TREADLE_TEST_SERVICE"  # a variable by which processes that a service started are found again


@dataclass(frozen=True)
class SshServer:
    """Where it listens on loopback, who may log in, and the files that a client needs."""

    port: int
    username: str
    private_key: Path
    known_hosts: Path


@dataclass(frozen=True)
class SlurmServer:
    """The variables that `sbatch` and the other commands need, and a folder for the logs of jobs."""

    environment: Mapping[str, str]
    partition: str
    logs: Path


@dataclass(frozen=True)
class GatewayServer:
    """Its URL, and the password with which any user name may log in."""

    url: str
    password: str


def why_no_sshd() -> str:
    """Why `sshd` cannot run here; empty if it can."""
    return _missing("sshd", "ssh", "ssh-keygen")


def why_no_slurm() -> str:
    """Why `slurm` cannot run here; empty if it can."""
    return _missing("munged", "slurmctld", "slurmd", "sbatch", "scancel", "sinfo", "squeue")


def why_no_gateway(python: str = sys.executable) -> str:
    """Why `gateway` cannot run with this interpreter; empty if it can."""
    modules = ("dask_gateway_server", "dask_gateway", "sqlalchemy")
    code = f"from importlib.util import find_spec; print('lacks', *[m for m in {modules} if find_spec(m) is None])"
    found = _output([python, "-c", code]) or "does not run"
    return "" if found == "lacks" else f"{python} {found}"


@contextmanager
def sshd(folder: Path) -> Iterator[SshServer]:
    """An OpenSSH server that lets the current user in with a key of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    mark, (port,), user = secrets.token_hex(8), _free_ports(1), pwd.getpwuid(os.geteuid()).pw_name
    for name in ("host_key", "user_key"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    known, config, log = folder / "known_hosts", folder / "sshd_config", folder / "sshd.log"
    known.write_text(f"[{LOOPBACK}]:{port} {(folder / 'host_key.pub').read_text()}")
    config.write_text(f"""
ListenAddress {LOOPBACK}
Port {port}
PidFile "{folder}/sshd.pid"
HostKey "{folder}/host_key"
AuthorizedKeysFile "{folder}/user_key.pub"
PasswordAuthentication no
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
UseDNS no
SetEnv {MARK}={mark}
""")
    if os.geteuid() == 0:
        # There the server confines its unprivileged half; a start script would have made it.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    login = ["ssh", "-F", "none", "-p", str(port), "-i", str(folder / "user_key"), "-o", "IdentitiesOnly=yes"]
    login += ["-o", f'UserKnownHostsFile="{known}"', "-o", "BatchMode=yes", f"{user}@{LOOPBACK}", "echo", "ready"]
    with ExitStack() as stack:
        stack.callback(_kill_all, lambda env: env.get(MARK) == mark)
        server = _start(stack, ["sshd", "-D", "-e", "-f", str(config)], log, {MARK: mark})
        _wait("sshd", lambda: _output(login) == "ready", {log: server}, 30)
        yield SshServer(port, user, folder / "user_key", known)


@contextmanager
def slurm(folder: Path, cpus: int = 4, memory_mib: int = 4096) -> Iterator[SlurmServer]:
    """A Slurm cluster of one node, which claims to have as many processors, with its own authentication service."""
    if len(os.fsencode(folder)) > 80:
        raise ValueError(f"{folder} is too long a path for the sockets that Slurm makes there")
    logs, conf, munge = folder / "logs", folder / "slurm.conf", folder / "munge.socket"
    for path in (logs, folder / "state", folder / "spool"):
        path.mkdir(parents=True, exist_ok=True)
    (folder / "munge.key").touch(mode=0o600)
    (folder / "munge.key").write_bytes(secrets.token_bytes(128))
    host, user = socket.gethostname().split(".")[0], pwd.getpwuid(os.geteuid()).pw_name
    controller_port, node_port = _free_ports(2)
    # NoInAddrAny, NoCtldInAddrAny: the daemons listen at the addresses given here, not at all of the machine's.
    conf.write_text(f"""
ClusterName=test
SlurmctldHost={host}({LOOPBACK})
SlurmctldPort={controller_port}
SlurmdPort={node_port}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={munge}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0
SlurmdParameters=config_overrides
KillWait=5
NodeName=node NodeHostname={host} NodeAddr={LOOPBACK} CPUs={cpus} RealMemory={memory_mib} State=UNKNOWN
PartitionName=test Nodes=node Default=YES MaxTime=INFINITE State=UP
""")
    environment = {"SLURM_CONF": str(conf)}

    def cancel() -> None:
        """End all jobs while the daemons that can do it still run."""
        _output(["scancel", f"--user={user}"], environment)
        end = time.monotonic() + 15
        while _output(["squeue", "--noheader"], environment) and time.monotonic() < end:
            time.sleep(0.1)

    with ExitStack() as stack:
        stack.callback(_kill_all, lambda env: env.get("SLURM_CONF") == str(conf) and "SLURM_JOB_ID" in env)
        # --force: the folders above the socket may be closed to other users, as temporary ones are.
        command = ["munged", "--foreground", "--force", f"--socket={munge}", f"--key-file={folder}/munge.key"]
        command += [f"--{name}-file={folder}/munged.{name}" for name in ("pid", "seed", "log")]
        daemons = {logs / "munged.log": _start(stack, command, logs / "munged.log", {})}
        _wait("munged", munge.exists, daemons, 30)
        for command in (["slurmctld", "-D", "-f", str(conf)], ["slurmd", "-D", "-f", str(conf), "-N", "node"]):
            log = logs / f"{command[0]}.log"
            daemons[log] = _start(stack, command, log, environment)
        stack.callback(cancel)
        state = ["sinfo", "--noheader", "--format=%T"]
        _wait("Slurm", lambda: _output(state, environment) == "idle", daemons, 60)
        yield SlurmServer(environment, "test", logs)


@contextmanager
def gateway(folder: Path, python: str = sys.executable) -> Iterator[GatewayServer]:
    """A Dask Gateway that, like its schedulers and workers, runs with this interpreter on this machine."""
    folder.mkdir(parents=True, exist_ok=True)
    mark, (port,), password = secrets.token_hex(8), _free_ports(1), secrets.token_hex(8)
    config, log = folder / "gateway_config.py", folder / "gateway.log"
    config.write_text(f"""
c.DaskGateway.backend_class = "dask_gateway_server.backends.local.UnsafeLocalBackend"
c.DaskGateway.authenticator_class = "dask_gateway_server.auth.SimpleAuthenticator"
c.SimpleAuthenticator.password = "{password}"
c.DaskGateway.address = "{LOOPBACK}:0"
c.Proxy.address = "{LOOPBACK}:{port}"
c.UnsafeLocalBackend.clusters_directory = {str(folder / "clusters")!r}
c.UnsafeLocalBackend.sigint_timeout = 5
c.LocalClusterConfig.scheduler_cmd = {[python, "-m", "distributed.cli.dask_scheduler"]!r}
c.LocalClusterConfig.worker_cmd = {[python, "-m", "distributed.cli.dask_worker", "--host", LOOPBACK]!r}
c.LocalClusterConfig.worker_memory = "500 M"
c.LocalClusterConfig.environment = {{"{MARK}": "{mark}"}}
""")
    with ExitStack() as stack:
        stack.callback(_kill_all, lambda env: env.get(MARK) == mark)
        server = _start(stack, [python, "-m", "dask_gateway_server", "-f", str(config)], log, {MARK: mark})
        _wait("the gateway", lambda: _is_ok(port, "/api/health"), {log: server}, 60)
        yield GatewayServer(f"http://{LOOPBACK}:{port}", password)


def _binary(name: str) -> str | None:
    """Path of a program, also of one for administrators, which need not be on the PATH of others."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"]))


def _missing(*names: str) -> str:
    missing = ", ".join(name for name in names if _binary(name) is None)
    return f"not installed: {missing}" if missing else ""


def _output(command: list[str], extra: Mapping[str, str] | None = None) -> str:
    """What a command prints that ends by itself; empty if it fails."""
    environment = os.environ | (extra or {})
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, env=environment, timeout=15)
        return done.stdout.decode().strip() if done.returncode == 0 else ""
    return ""


def _is_ok(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=5)
    with closing(connection), suppress(OSError, http.client.HTTPException):
        connection.request("GET", path)
        return connection.getresponse().status == 200
    return False


def _free_ports(count: int) -> list[int]:
    """Different ports on which nothing listened a moment ago."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server((LOOPBACK, 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]


def _start(stack: ExitStack, command: list[str], log: Path, extra: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a daemon in the foreground, which is stopped when `stack` closes."""
    command, environment = [_binary(command[0]) or command[0], *command[1:]], os.environ | extra
    with log.open("wb") as out:
        # A session of its own: an interrupt at the terminal reaches the tests, which stop the daemon in order.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment, start_new_session=True
        )
    stack.callback(_stop, process)
    return process


def _wait(what: str, ready: Callable[[], bool], daemons: Mapping[Path, subprocess.Popen[bytes]], limit: float) -> None:
    """Poll until `ready`; an error with the ends of the logs if a daemon ends first or the time is over."""
    end = time.monotonic() + limit
    while not ready():
        ended = [log.stem for log, daemon in daemons.items() if daemon.poll() is not None]
        if ended or time.monotonic() > end:
            reason = f"{', '.join(ended)} ended" if ended else f"not ready after {limit:g} s"
            tails = "".join(f"\n{log.name}:\n{log.read_text(errors='replace')[-2000:]}" for log in daemons)
            raise RuntimeError(f"{what} does not come up, {reason}{tails}")
        time.sleep(0.1)


def _stop(daemon: subprocess.Popen[bytes]) -> None:
    """End a daemon, and those of its children that it leaves behind."""
    children: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        children = psutil.Process(daemon.pid).children(recursive=True)
    daemon.terminate()
    with suppress(subprocess.TimeoutExpired):
        daemon.wait(20)
    daemon.kill()
    daemon.wait()
    _kill(children)


def _kill_all(ours: Callable[[Mapping[str, str]], bool]) -> None:
    """End what a service started and is no longer a child of it, known by its environment."""
    # Processes of others, whose environment may not be read, have none here.
    running = psutil.process_iter(["environ"])
    _kill([p for p in running if p.pid != os.getpid() and ours(p.info["environ"] or {})])


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=5)
