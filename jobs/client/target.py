"""Which service a client talks to, and how: address, token, certificates."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from treadle.cluster.profiles import is_loopback
from treadle.errors import RequestError

URL = "http://127.0.0.1:8844"
"""Where `treadle up` serves when nothing else is asked of it."""


@dataclass(frozen=True)
class Target:
    """A service. Its token is shown nowhere."""

    url: str
    token: str | None = field(repr=False)
    ca: str | None
    timeout: float
    """Seconds without a byte after which an answer is given up."""

    @property
    def is_here(self) -> bool:
        """Whether the service is on this machine, and so sees the files that the client sees."""
        return is_loopback(urlsplit(self.url).hostname or "")

    def options(self) -> dict[str, Any]:
        """What httpx is to be told; proxies of the environment are not asked for this machine."""
        headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {self.token}"} if self.token else {})
        verify: Any = False  # there is nothing to verify without TLS, and certificates take time to load
        if self.url.startswith("https:"):
            verify = _trusting(self.ca) if self.ca else True
        return {
            "base_url": self.url,
            "headers": headers,
            "timeout": self.timeout,
            "verify": verify,
            "trust_env": not self.is_here,
        }


def target_of(url: str | None = None, token: str | None = None, ca: str | None = None, timeout: float = 30.0) -> Target:
    """What is given, else TREADLE_URL, TREADLE_TOKEN and TREADLE_CA, else a service on this machine.

    Raises
    ------
    RequestError
        The address is no http or https URL, or the token cannot be sent.
    """
    address = (url or os.environ.get("TREADLE_URL") or URL).rstrip("/")
    secret = (token or os.environ.get("TREADLE_TOKEN") or "").strip()
    if not timeout > 0:
        raise RequestError(f"timeout: {timeout} is no number of seconds; give one above 0, such as 30.")
    if not all("!" <= c <= "~" for c in secret):
        raise RequestError("The token has characters that no token has; copy it again, without quotes or line breaks.")
    trusted = ca or os.environ.get("TREADLE_CA") or None
    return Target(_checked(address), secret or None, trusted, timeout)


def _checked(address: str) -> str:
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise RequestError(f"'{address}' is no address of a service: {error}.") from error
    if parts.username is not None or parts.password is not None:
        raise RequestError("The address of the service holds a user or password; give a token by --token instead.")
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        hint = f" Did you mean 'http://{address}'?" if "://" not in address else ""
        raise RequestError(f"'{address}' is no address of a service; it is of the form {URL}.{hint}")
    return address


def _trusting(ca: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:  # also ssl.SSLError
        raise RequestError(f"The certificates '{ca}' cannot be read: {error.strerror or error}.") from error
