"""How a service is set up: TREADLE_HOME/service.yaml, and what the environment and the command line say instead."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from treadle.cluster.profiles import AnyProfile, Attached, Local, is_loopback
from treadle.jobs import loading
from treadle.jobs.documents import read

PORT = 8844
FILE = "service.yaml"
DATABASE = "TREADLE_DATABASE"
"""Of the environment: an address with a password is not for command lines, which every user of a machine can read."""
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Module = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$")]


class Settings(BaseModel):
    """A service. Frozen: another setting is another start."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = "127.0.0.1"
    """Address to listen on. Off loopback, tokens and TLS are needed."""
    port: Annotated[int, Field(ge=0, le=65535)] = PORT
    """0 for any that is free."""
    certificate: str | None = None
    """PEM file of the certificate that HTTPS is served with, and `key` its private key."""
    key: str | None = None
    tokens: bool = False
    """Whether loopback needs tokens, too."""
    database: str | None = None
    """sqlite:///... or postgresql://...; a file in TREADLE_HOME when absent. TREADLE_DATABASE says it instead."""
    root: str = "artifacts"
    """Artifacts root of jobs whose spec has none: a folder or an fsspec URL."""
    allow_roots: tuple[str, ...] = ()
    """Folders and URLs that jobs may read from and write to, with all below them; the working folder when empty."""
    allow_code: tuple[Module, ...] = ()
    """Modules whose estimators specs may name as models, with those below them; none when empty."""
    cluster: AnyProfile = Local()
    """Where jobs run: a profile that is started with the service, or a scheduler that runs already."""
    max_running: Count = 2
    """Jobs that run at once."""
    max_running_per_user: Count | None = None
    retries: Annotated[int, Field(ge=0, le=100)] = 2
    """Attempts after the first when the machine is at fault, of jobs that do not say."""
    timeout: Positive | None = None
    """Seconds that an attempt may take, of jobs that do not say."""
    back_off: Positive = 5.0
    """Seconds before the second attempt; twice as many before each further one, 10 minutes at most."""
    silence: Positive = 60.0
    """Seconds without a sign of life after which a driver is killed."""
    max_body: Annotated[int, Field(ge=1024)] = 4 * 2**20
    """Bytes of a request."""
    requests_a_minute: Count = 30_000
    """Of one client address; more are refused for a while."""

    @model_validator(mode="after")
    def _https_is_whole(self) -> Settings:
        if (self.certificate is None) != (self.key is None):
            raise PydanticCustomError("tls", "certificate, key: give both, or neither")
        if not is_loopback(self.host) and self.certificate is None:
            raise PydanticCustomError(
                "tls",
                "host: {host} can be reached from other machines, so certificate and key are needed: "
                "`treadle certs DIR` makes some",
                {"host": self.host},
            )
        return self

    @property
    def needs_tokens(self) -> bool:
        """Whether a request without a token is refused."""
        return self.tokens or not is_loopback(self.host)

    @property
    def allowed(self) -> tuple[str, ...]:
        """Where jobs may read and write."""
        return self.allow_roots or (os.getcwd(),)

    def closed(self, home: Path) -> tuple[str, ...]:
        """Where they may not, although it may lie in an allowed folder: the service's state and private keys."""
        tls = getattr(self.cluster, "tls", None)
        keys = [key for key in (self.key, getattr(tls, "key", None)) if key]
        # Those of the authority and of Dask lie beside it.
        beside = [str(path) for key in keys for path in Path(key).parent.glob("*.key")]
        return (str(home), *keys, *beside)

    @property
    def url(self) -> str:
        """Where clients on this machine find it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.certificate else 'http'}://{host}:{self.port}"

    def attached(self) -> Attached | None:
        """The running scheduler that jobs are to use, if it is not the service's own."""
        return self.cluster if isinstance(self.cluster, Attached) else None


def home(given: str | os.PathLike[str] | None = None) -> Path:
    """The folder with the service's state: as given, else TREADLE_HOME, else ~/.treadle."""
    return Path(given or os.environ.get("TREADLE_HOME") or "~/.treadle").expanduser().absolute()


def load_settings(folder: Path, given: Mapping[str, Any]) -> Settings:
    """The settings of TREADLE_HOME/service.yaml, where it is there, with those that are given instead.

    The database of the environment goes before the file's, and after one that is given.

    Raises
    ------
    RequestError
        The file, or what was given, has mistakes: all of them are named at once.
    """
    if database := os.environ.get(DATABASE):
        given = {"database": database, **given}
    path = folder / FILE
    if os.path.exists(path) and read(path).data is not None:
        return loading.load(path, Settings, instead=given)
    return loading.load(given, Settings)
