"""The cluster that jobs run on: one that is started beside the service, or one that is attached to."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from treadle.cluster.private import private_folder
from treadle.cluster.profiles import Attached, Profile
from treadle.cluster.standing import StandingCluster

CHECK_SECONDS = 2.0
CONNECT_SECONDS = 2.0
START_SECONDS = 5.0
"""Between tries to start it."""

log = logging.getLogger("treadle.service")


class Beside:
    """Used by the dispatcher's thread; what it last saw may be read by all."""

    def __init__(self, profile: Profile, folder: Path) -> None:
        self._profile = profile
        self._own = None if isinstance(profile, Attached) else StandingCluster(folder)
        self.log = folder / "cluster.log"
        private_folder(folder)
        self._looked = -CHECK_SECONDS
        self._started = -START_SECONDS
        self._seen: dict[str, Any] | None = None

    @property
    def seen(self) -> Mapping[str, Any] | None:
        """The profile to attach to, as it was last looked at; None when the cluster is not up."""
        return self._seen

    @property
    def dashboard(self) -> str | None:
        found = self._own.found() if self._own else None
        return found.dashboard if found else None

    @property
    def state(self) -> tuple[Literal["up", "starting", "down"], str]:
        """up, starting or down, and why."""
        if self._seen is not None:
            return "up", "it answers"
        if self._own is None:
            return "down", f"no scheduler answers at {getattr(self._profile, 'address', '')}; start it"
        return "starting", f"it is being started; {self.log} has what it says"

    def ready(self) -> Mapping[str, Any] | None:
        """The profile to attach to, when the cluster is up; it is started when it is not."""
        now = time.monotonic()
        # Its own cluster tells at once whether it lives: no job is to be started on one that died a moment ago.
        if self._own is not None or now - self._looked >= CHECK_SECONDS or self._seen is None:
            self._seen = self._look()
            self._looked = now
        return self._seen

    def has_lost(self, profile: Mapping[str, Any]) -> bool:
        """Whether a cluster that jobs were started on is gone: another one is up in its place."""
        seen = self.ready()
        return seen is not None and seen["address"] != profile["address"]

    def stop(self) -> None:
        """Ends the cluster, if it is the service's own."""
        if self._own is not None:
            self._own.stop()

    def _look(self) -> dict[str, Any] | None:
        if self._own is None:
            assert isinstance(self._profile, Attached)
            return self._profile.model_dump(mode="json") if _answers(self._profile) else None
        found = self._own.found()
        if found is not None:
            return {"profile": "address", "address": found.address}
        if not self._own.is_starting() and time.monotonic() - self._started >= START_SECONDS:
            self._started = time.monotonic()
            log.info("starting the cluster")
            self._own.start(self._profile)
        return None


def _answers(profile: Attached) -> bool:
    """Whether somebody listens; with TLS, somebody whose certificate is of the profile's authority."""
    parts = urlsplit(profile.address)
    with (
        contextlib.suppress(OSError, ValueError),
        socket.create_connection((parts.hostname or "", parts.port or 8786), CONNECT_SECONDS) as connection,
    ):
        if profile.tls is None:
            return True
        context = ssl.create_default_context(cafile=profile.tls.ca)
        context.check_hostname = False  # nor does Dask: certificates are of one authority, not of one host
        context.load_cert_chain(profile.tls.cert, profile.tls.key)
        with context.wrap_socket(connection):
            return True
    return False
