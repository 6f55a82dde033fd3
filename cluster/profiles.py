"""Cluster profiles: where a job runs, as a value in the spec."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

Count = Annotated[int, Field(ge=1)]
Memory = Annotated[str, Field(pattern=r"^\d+(\.\d+)?\s*([kMGT]i?)?B$")]
"""A size with its unit, e.g. 4GB or 512MiB."""
Share = Annotated[float, Field(gt=0, le=1)]


class Profile(BaseModel):
    """What all profiles have in common."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Local(Profile):
    """Worker processes on this machine; one for each GPU when the job runs on GPUs."""

    profile: Literal["local"] = "local"
    workers: Count | None = None
    """Worker processes. When absent one a core, four at most; on GPUs one a GPU, which is also the most."""
    threads: Count | None = None
    """Threads a worker; when absent the cores are shared out."""
    memory: Memory | None = None
    """Memory limit of a worker, e.g. 4GB; an equal share of 90 % of the machine when absent."""


class LocalCuda(Profile):
    """As `local` on GPUs, with a say in how their memory is used."""

    profile: Literal["local-cuda"]
    gpus: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] | None = None
    """Numbers of the GPUs, as in CUDA_VISIBLE_DEVICES; all that are visible when absent. One worker each."""
    threads: Count | None = None
    """Threads a worker; when absent the cores are shared out. One at a time uses the GPU, the others the host."""
    memory: Memory | None = None
    """Memory limit of a worker on the host; an equal share of 90 % of the machine when absent."""
    rmm_pool: Share | Memory | None = None
    """GPU memory that a worker takes at once and keeps: a share of the GPU's, or a size. XGBoost gets none of it. When
    absent the driver's allocator gives out what is asked for, and takes back what nobody uses."""
    device_memory_limit: Share | Memory | None = None
    """GPU memory from which Dask moves results to the host; dask-cuda's own choice when absent."""
    spill: bool = True
    """Whether cuDF moves columns to the host when the GPU is full."""
    protocol: Literal["tcp", "ucx"] | None = None
    """Between workers: UCX when absent, where it is installed and there are several GPUs, else TCP."""


class Tls(BaseModel):
    """Files by which the processes of a cluster know each other: PEM, at the same paths on every machine."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ca: str
    cert: str
    key: str


class Attached(Profile):
    """A scheduler that is running already, with whatever workers it has."""

    profile: Literal["address"]
    address: str
    """E.g. tcp://127.0.0.1:8786, or tls://... with `tls`."""
    tls: Tls | None = None

    @model_validator(mode="after")
    def _tls_goes_with_its_address(self) -> Attached:
        if self.address.startswith("tls://") != (self.tls is not None):
            raise PydanticCustomError("tls", "cluster.tls: it is needed with an address tls://..., and only there")
        return self


class Ssh(Profile):
    """Workers on other machines, started through SSH with keys; they see the same files and the same Python."""

    profile: Literal["ssh"]
    hosts: Annotated[tuple[str, ...], Field(min_length=1)]
    """The first one also gets the scheduler."""
    workers: Count = 1
    """Worker processes on each host."""
    threads: Count | None = None
    """Threads a worker; when absent the cores of its host are shared out."""
    memory: Memory | None = None
    """Memory limit of a worker; an equal share of its host when absent."""
    gpus: bool = False
    """Whether hosts have GPUs: then each starts one worker a GPU, and `workers` and `threads` do not count."""
    username: str | None = None
    port: Annotated[int, Field(ge=1, le=65535)] = 22
    key: str | None = None
    """File of the private key; the user's own and those of an agent when absent."""
    known_hosts: str | None = None
    """File with the hosts' keys; the user's own when absent. Hosts that are not in it are refused."""
    python: str | None = None
    """Path of the interpreter on the hosts; the one that runs here when absent."""
    tls: Tls | Literal["off"] | None = None
    """Needed unless all hosts are this machine; `off` on a network whose every user may run code as you."""

    @model_validator(mode="after")
    def _traffic_is_guarded(self) -> Ssh:
        strangers = [host for host in self.hosts if not is_loopback(host)]
        if strangers and self.tls is None:
            raise PydanticCustomError(
                "tls",
                "cluster.tls: missing; without it whoever reaches the scheduler on {host} runs code as you. Give "
                "{{ca: ..., cert: ..., key: ...}}, or off on a network that you trust",
                {"host": strangers[0]},
            )
        return self


class Slurm(Profile):
    """Workers as Slurm jobs, through dask-jobqueue."""

    profile: Literal["slurm"]
    workers: Count
    """Slurm jobs, one worker each."""
    cores: Count
    """Of a job."""
    memory: Memory
    """Of a job."""
    gpus: Annotated[int, Field(ge=0)] = 0
    """Of a job; a worker uses one, so more than one is refused."""
    queue: str | None = None
    account: str | None = None
    walltime: Annotated[str, Field(pattern=r"^(\d+-)?\d{1,2}:\d{2}(:\d{2})?$")] = "01:00:00"
    interface: str | None = None
    """Network interface that nodes reach each other by, e.g. ib0."""
    shared_folder: str = "~"
    """Where the certificates of a run lie, readable by the user only; nodes see it too."""
    directives: tuple[str, ...] = ()
    """More options of sbatch, e.g. --constraint=a100."""
    prologue: tuple[str, ...] = ()
    """Lines of shell before a worker starts, e.g. module load cuda."""

    @field_validator("gpus")
    @classmethod
    def _one_gpu(cls, value: int) -> int:
        if value > 1:
            raise PydanticCustomError(
                "gpus", "gpus: {value} for one worker; ask for 1, and for more workers", {"value": value}
            )
        return value

    @field_validator("directives", "prologue")
    @classmethod
    def _single_lines(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for line in value:
            if "\n" in line or "\r" in line:
                raise PydanticCustomError("line", "one entry a line, without line breaks: {line}", {"line": repr(line)})
        return value


class Kubernetes(Profile):
    """Workers as pods, through the Dask operator."""

    profile: Literal["kubernetes"]
    image: str
    """Container image with Treadle in it."""
    workers: Count
    namespace: str | None = None
    cores: Count = 1
    """Of a pod."""
    memory: Memory = "4GiB"
    """Of a pod."""
    gpus: Annotated[int, Field(ge=0, le=1)] = 0
    """Of a pod."""
    service_account: str | None = None


class Gateway(Profile):
    """A cluster from a Dask Gateway. Its token is read from the variable JUPYTERHUB_API_TOKEN, never from a spec."""

    profile: Literal["gateway"]
    address: str
    """E.g. https://gateway.example.org."""
    workers: Count
    auth: Literal["basic", "jupyterhub", "kerberos"] | None = None
    """The gateway client's own configuration decides when absent."""
    options: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """Options that the gateway offers, e.g. worker_cores."""
    gpus: bool = False
    """Whether the gateway's workers have GPUs."""

    @model_validator(mode="after")
    def _address_is_a_url(self) -> Gateway:
        if not self.address.startswith(("http://", "https://")):
            raise PydanticCustomError(
                "address", "cluster.address: '{address}' is no URL; e.g. https://gateway.example.org",
                {"address": self.address},
            )  # fmt: skip
        return self


def _local_by_default(value: Any) -> Any:
    return {"profile": "local", **value} if isinstance(value, Mapping) else value


AnyProfile = Annotated[
    Local | LocalCuda | Attached | Ssh | Slurm | Kubernetes | Gateway,
    Field(discriminator="profile"),
    BeforeValidator(_local_by_default),
]
"""Without a `profile` it is `local`."""


def has_gpus(profile: Profile) -> bool:
    """Whether a profile asks for workers with GPUs."""
    return isinstance(profile, LocalCuda) or bool(getattr(profile, "gpus", False))


def is_here(profile: Profile) -> bool:
    """Whether the workers are processes of this machine that Treadle starts."""
    return isinstance(profile, (Local, LocalCuda))


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by an address that no other machine can reach."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name
