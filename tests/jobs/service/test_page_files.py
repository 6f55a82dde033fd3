"""The files that the live page is made of, and how they are served."""

from __future__ import annotations

import fnmatch
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.jobs.service.browser import loopback
from tests.jobs.service.by_hand import ByHand
from treadle.jobs.service.page import KINDS, assets

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a service that needs tokens, but not for the page."""
    service = ByHand.open(tmp_path_factory.mktemp("service") / "home", tokens=True)
    with loopback(service.app()) as address:
        yield address
    service.close()


def test_files_are_served_with_strict_headers_and_only_once_while_they_stay_the_same(origin: str) -> None:
    first = httpx.get(f"{origin}/")
    assert first.status_code == 200
    assert "<title>Treadle</title>" in first.text
    names = {name for name in assets() if name != "index.html"}
    assert {"app.js", "page.css", "icon.svg"} <= names
    for path in ("", *(f"page/{name}" for name in names)):
        answer = httpx.get(f"{origin}/{path}")
        policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
        assert policy["default-src"] == "'self'"
        assert not {"script-src", "style-src", "connect-src"} & set(policy)
        assert answer.headers["x-content-type-options"] == "nosniff"
        tag = answer.headers["etag"]
        again = httpx.get(f"{origin}/{path}", headers={"If-None-Match": f'"other", W/{tag}'})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert httpx.get(f"{origin}/{path}", headers={"If-None-Match": '"other"'}).content == answer.content


@pytest.mark.parametrize("name", ["__init__.py", "index.html", "..%2f__init__.py", "%2e%2e/states.py", "nothing.js"])
def test_only_the_files_of_the_page_are_served(origin: str, name: str) -> None:
    assert httpx.get(f"{origin}/page/{name}").status_code == 404


def test_every_file_that_the_page_asks_for_is_there_and_is_packed() -> None:
    held = assets()
    named = re.findall(r'(?:src|href)="page/([^"]+)"', held["index.html"].content.decode())
    for name, asset in held.items():
        if name.endswith(".js"):
            named += re.findall(r'from "\./([^"]+)"', asset.content.decode())
    assert {"app.js", "page.css", "icon.svg", "api.js"} <= set(named) <= set(held)
    packed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    patterns = packed["treadle.jobs.service.page"]
    assert [name for name in held if not any(fnmatch.fnmatch(name, pattern) for pattern in patterns)] == []
    assert {Path(name).suffix for name in held} == set(KINDS)
