"""Clusters of other machines: attached to, or started through SSH, Slurm, Kubernetes or a Dask Gateway."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from treadle.cluster.agreement import check_versions
from treadle.cluster.profiles import Attached, Gateway, Kubernetes, Profile, Slurm, Ssh, Tls, is_loopback
from treadle.errors import RequestError, TreadleError

if TYPE_CHECKING:
    from distributed import Client, Security

ATTACH_TIMEOUT = "15s"
WORKERS_SECONDS = 600.0
"""For all workers to come: a queue or an image that has to be fetched may take minutes."""


@contextlib.contextmanager
def remote(profile: Profile) -> Iterator[Client]:
    """A client of a cluster whose workers and scheduler have our versions. What was started is stopped at the end.

    Raises
    ------
    RequestError
        Nothing answers at the profile's address, or the library for its kind of cluster is not installed.
    TreadleError
        The cluster or its workers do not start, or have other versions.
    """
    from distributed.versions import VersionMismatchWarning

    with contextlib.ExitStack() as stack:
        with warnings.catch_warnings():
            # Distributed warns of what the check refuses.
            warnings.simplefilter("ignore", VersionMismatchWarning)
            client = STARTERS[type(profile)](profile, stack)
        check_versions(client)
        yield client


def _attached(profile: Attached, stack: contextlib.ExitStack) -> Client:
    from distributed import Client

    stack.enter_context(_secured(profile.tls))
    try:
        client = Client(profile.address, timeout=ATTACH_TIMEOUT, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise RequestError(
            f"No Dask scheduler answers at {profile.address} (cluster.address): {error}. "
            "Start it, or use profile: local."
        ) from error
    return stack.enter_context(client)


def _ssh(profile: Ssh, stack: contextlib.ExitStack) -> Client:
    _needs("asyncssh", profile)
    from distributed import Security, SSHCluster

    tls = profile.tls if isinstance(profile.tls, Tls) else None
    stack.enter_context(_secured(tls))
    options = {"username": profile.username, "client_keys": profile.key, "known_hosts": profile.known_hosts}
    worker: dict[str, Any] = {"memory_limit": profile.memory or "auto"}
    if not profile.gpus:
        worker |= {"n_workers": profile.workers, **({"nthreads": profile.threads} if profile.threads else {})}
    if all(map(is_loopback, profile.hosts)):
        worker["host"] = profile.hosts[0]  # else they listen on every interface
    return _started(
        profile,
        stack,
        profile.workers * len(profile.hosts),
        lambda: SSHCluster(
            [profile.hosts[0], *profile.hosts],
            connect_options={"port": profile.port, **{k: v for k, v in options.items() if v is not None}},
            worker_options=worker,
            scheduler_options={
                "host": profile.hosts[0],
                "port": 0,
                "dashboard_address": "127.0.0.1:0",
                **({"protocol": "tls"} if tls else {}),
            },
            worker_class="dask_cuda.CUDAWorker" if profile.gpus else "distributed.Nanny",
            remote_python=profile.python,
            security=Security(),
        ),
    )


def _slurm(profile: Slurm, stack: contextlib.ExitStack) -> Client:
    _needs("dask_jobqueue", profile)
    from dask_jobqueue.slurm import SLURMCluster

    certificates = _certificates(os.path.expanduser(profile.shared_folder), stack)
    directives = [*([f"--gres=gpu:{profile.gpus}"] if profile.gpus else []), *profile.directives]
    return _started(
        profile,
        stack,
        profile.workers,
        lambda: SLURMCluster(
            n_workers=profile.workers,
            cores=profile.cores,
            processes=1,
            memory=profile.memory,
            queue=profile.queue,
            account=profile.account,
            walltime=profile.walltime,
            interface=profile.interface,
            job_extra_directives=directives,
            job_script_prologue=list(profile.prologue),
            worker_command="dask_cuda.cli" if profile.gpus else "distributed.cli.dask_worker",
            worker_extra_args=["--no-dashboard"],
            security=certificates,
            protocol="tls://",
            scheduler_options={"dashboard_address": "127.0.0.1:0"},
        ),
    )


def _certificates(folder: str, stack: contextlib.ExitStack) -> Security:
    """Of this run's own, so that nobody else on the network can send it code; in files for this user only."""
    from distributed import Security

    made = Security.temporary()
    own = stack.enter_context(tempfile.TemporaryDirectory(prefix=".treadle-", dir=folder))
    paths = {}
    for name, text in (("ca_file", made.tls_ca_file), ("key", made.tls_client_key), ("cert", made.tls_client_cert)):
        paths[name] = os.path.join(own, f"{name}.pem")
        with open(paths[name], "x", encoding="ascii", opener=_private) as file:
            file.write(text)
    roles = {
        f"tls_{role}_{what}": paths[what] for role in ("client", "scheduler", "worker") for what in ("key", "cert")
    }
    return Security(tls_ca_file=paths["ca_file"], require_encryption=True, **roles)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _kubernetes(profile: Kubernetes, stack: contextlib.ExitStack) -> Client:
    _needs("dask_kubernetes", profile)
    from dask_kubernetes.operator import KubeCluster

    return _started(
        profile,
        stack,
        profile.workers,
        lambda: KubeCluster(
            namespace=profile.namespace,
            custom_cluster_spec=kubernetes_spec(profile),
            shutdown_on_close=True,
            quiet=True,
        ),
    )


def kubernetes_spec(profile: Kubernetes) -> dict[str, Any]:
    """The DaskCluster resource of a profile."""
    from dask_kubernetes.operator import make_cluster_spec

    limits = {"cpu": str(profile.cores), "memory": _quantity(profile.memory)}
    spec: dict[str, Any] = make_cluster_spec(
        name=f"treadle-{secrets.token_hex(4)}",
        image=profile.image,
        n_workers=profile.workers,
        resources={"requests": dict(limits), "limits": dict(limits)},
        worker_command="dask cuda worker" if profile.gpus else "dask worker",
    )
    worker, scheduler = spec["spec"]["worker"]["spec"], spec["spec"]["scheduler"]["spec"]
    worker["containers"][0]["args"] += ["--nthreads", str(profile.cores), "--memory-limit", profile.memory]
    if profile.gpus:
        # Only workers compute; a scheduler with a GPU would keep one from them.
        limits = worker["containers"][0]["resources"]["limits"]
        worker["containers"][0]["resources"] = {
            **worker["containers"][0]["resources"], "limits": {**limits, "nvidia.com/gpu": str(profile.gpus)}
        }  # fmt: skip
    for pod in (worker, scheduler):
        if profile.service_account:
            pod["serviceAccountName"] = profile.service_account
    return spec


def _gateway(profile: Gateway, stack: contextlib.ExitStack) -> Client:
    _needs("dask_gateway", profile)
    from dask_gateway import GatewayCluster

    def start() -> Any:
        cluster = GatewayCluster(profile.address, auth=profile.auth, **profile.options)
        # Closed once, it would close itself again when it is let go of, and fail without its event loop.
        stack.callback(vars(cluster.gateway).pop, "_loop_runner", None)
        cluster.scale(profile.workers)
        return cluster

    return _started(profile, stack, profile.workers, start)


STARTERS: Mapping[type[Profile], Callable[[Any, contextlib.ExitStack], Client]] = {
    Attached: _attached,
    Ssh: _ssh,
    Slurm: _slurm,
    Kubernetes: _kubernetes,
    Gateway: _gateway,
}


def _started(profile: Any, stack: contextlib.ExitStack, workers: int, create: Callable[[], Any]) -> Client:
    """A client of a new cluster, once all its workers are there."""
    try:
        cluster = stack.enter_context(create())
        client: Client = stack.enter_context(cluster.get_client())
    except Exception as error:  # whatever the other libraries and the network raise
        cause = error.__cause__ or error
        raise TreadleError(
            f"The cluster (profile: {profile.profile}) did not start: {type(cause).__name__}: {cause}."
        ) from error
    try:
        client.wait_for_workers(workers, timeout=WORKERS_SECONDS)
    except TimeoutError as error:
        there = len(client.scheduler_info(n_workers=-1)["workers"])
        raise TreadleError(
            f"Only {there} of {workers} workers (profile: {profile.profile}) came in {WORKERS_SECONDS:.0f} s; look at "
            "their logs and the queue, or ask for fewer by cluster.workers."
        ) from error
    return client


def _needs(module: str, profile: Any) -> None:
    if importlib.util.find_spec(module) is None:
        raise RequestError(
            f"cluster.profile: {profile.profile} needs the library {module.replace('_', '-')}, which is not installed: "
            "pip install 'treadle[clusters]'."
        )


@contextlib.contextmanager
def _secured(tls: Tls | None) -> Iterator[None]:
    """Dask's settings for encrypted traffic, which processes that it starts elsewhere inherit."""
    import dask

    if tls is None:
        yield
        return
    settings: dict[str, Any] = {"distributed.comm.require-encryption": True, "distributed.comm.tls.ca-file": tls.ca}
    for role in ("client", "scheduler", "worker"):
        settings[f"distributed.comm.tls.{role}.key"] = tls.key
        settings[f"distributed.comm.tls.{role}.cert"] = tls.cert
    with dask.config.set(settings):
        yield


def _quantity(memory: str) -> str:
    """A size as Kubernetes spells it: 4GiB is 4Gi, 500MB is 500M."""
    return memory.replace(" ", "").removesuffix("B")
