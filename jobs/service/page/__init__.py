"""The live page: files that the service hands to browsers. They need no build, and nothing from elsewhere."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files

from fastapi import APIRouter, HTTPException, Request, Response

KINDS = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""Suffixes of the files that are handed out, and what they are."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
"""Of every answer. A browser may keep a file, and asks each time whether it is still the same."""


@dataclass(frozen=True)
class Asset:
    """One file of the page."""

    content: bytes
    media_type: str
    etag: str


def assets() -> dict[str, Asset]:
    """The files by name, read from the package."""
    found = {}
    for file in files(__name__).iterdir():
        suffix = file.name[file.name.rfind(".") :]
        if suffix in KINDS:
            content = file.read_bytes()
            etag = f'"{hashlib.blake2b(content, digest_size=16).hexdigest()}"'
            found[file.name] = Asset(content, KINDS[suffix], etag)
    return found


def router() -> APIRouter:
    """`/` and `/page/*`, which need no token: they hold nothing of any job."""
    routes = APIRouter(include_in_schema=False)
    held = assets()

    @routes.api_route("/", methods=["GET", "HEAD"])
    def index(request: Request) -> Response:
        return _answer(request, held["index.html"])

    @routes.api_route("/page/{name}", methods=["GET", "HEAD"])
    def asset(request: Request, name: str) -> Response:
        if name not in held or name == "index.html":
            raise HTTPException(404, f"the page has no file '{name}'")
        return _answer(request, held[name])

    return routes


def _answer(request: Request, asset: Asset) -> Response:
    headers = {**HEADERS, "ETag": asset.etag}
    known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    if known & {asset.etag, "*"}:
        return Response(status_code=304, headers=headers)
    return Response(asset.content, headers=headers, media_type=asset.media_type)
