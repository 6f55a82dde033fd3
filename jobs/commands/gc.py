"""`treadle gc`: what nobody needs under an artifacts root goes."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from treadle.errors import RequestError
from treadle.jobs.commands.options import Debug, Json, Quiet, Root, messages


def register(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    app.command()(gc)


def gc(
    root: Root = None,
    older_than: Annotated[
        str | None,
        typer.Option(
            metavar="SPAN", help="Remove outcomes that no run has used for so long, e.g. 30d.", show_default=False
        ),
    ] = None,
    max_size: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Remove outcomes, the least recently used first, until the cache fits, e.g. 50GB.",
            show_default=False,
        ),
    ] = None,
    grace: Annotated[
        str, typer.Option(metavar="SPAN", help="Touch nothing younger; longer than the longest job, or 0.")
    ] = "24h",
    keep_runs: Annotated[
        int | None, typer.Option(min=1, help="Forget all but so many runs of each job.", show_default=False)
    ] = None,
    runs_older_than: Annotated[
        str | None,
        typer.Option(metavar="SPAN", help="Forget runs that ended so long ago, e.g. 90d.", show_default=False),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would go.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Remove what nobody needs under a root: what runs left unfinished, old outcomes, versions of forgotten runs."""
    with messages(debug, as_json):
        from treadle.jobs.gc.collect import collect
        from treadle.jobs.gc.rules import Rules
        from treadle.jobs.registry.promotion import in_use
        from treadle.jobs.spec import root_of

        rules = Rules(
            older_than=_seconds("--older-than", older_than),
            max_size=_bytes(max_size),
            grace=_seconds("--grace", grace) or 0.0,
            keep_runs=keep_runs,
            runs_older_than=_seconds("--runs-older-than", runs_older_than),
        )
        report = collect(root_of(root), rules, protected=in_use(root_of(root)), dry_run=dry_run)
        if as_json:
            print(json.dumps(report.described()))
        elif not quiet:
            from treadle.jobs.commands import gc_console

            gc_console.show(report)


def _seconds(option: str, text: str | None) -> float | None:
    from pydantic_core import PydanticCustomError

    from treadle.engine.relational.window import UNITS, microseconds

    if text is None:
        return None
    if text.strip() in ("0", *(f"0{unit}" for unit in UNITS)):  # which a spec may not say of a window
        return 0.0
    try:
        return microseconds(text) / 1e6
    except PydanticCustomError as error:
        raise RequestError(f"{option}: {error.message()}.") from error


def _bytes(text: str | None) -> int | None:
    from dask.utils import parse_bytes

    if text is None:
        return None
    try:
        found = int(parse_bytes(text))
    except ValueError:
        found = -1
    if found < 0:
        raise RequestError(f"--max-size: '{text}' is no size; write a number and a unit, such as 50GB or 500MiB.")
    return found
