"""`treadle models` and `treadle promote`: versions of models, and which of them has an alias."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Annotated

import typer

from treadle.jobs.commands.options import Debug, Json, Root, messages


def models(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="All versions of this model.", show_default=False)
    ] = None,
    sync: Annotated[
        bool, typer.Option("--sync", help="First record in MLflow what it lacks of the runs under the root.")
    ] = False,
    root: Root = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List models with their aliases, or the versions of one."""
    with messages(debug, as_json):
        from treadle.engine.store import Store
        from treadle.jobs.registry import recorder
        from treadle.jobs.registry.connection import TrackingError
        from treadle.jobs.registry.versions import list_models
        from treadle.jobs.spec import root_of

        store = Store(root_of(root))
        with contextlib.suppress(TrackingError):  # which the list tells of
            recorder.catch_up(store)
        recorded = list(recorder.sync(store, name)) if sync else []
        rows, warnings = list_models(store, name)
        if as_json:
            done = {"recorded": recorded} if sync else {}
            print(json.dumps({"models": rows, "warnings": warnings, **done}))
            return
        from treadle.jobs.commands import models_console

        if sync:
            models_console.show_recorded(recorded)
        models_console.show_models(rows, store.url, name)
        for warning in warnings:
            print(f"treadle: {warning}", file=sys.stderr)


def promote(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="NAME:VERSION, NAME@ALIAS, or NAME for the newest version.")
    ],
    alias: Annotated[str, typer.Argument(help="The alias that it gets, e.g. champion.", show_default=False)],
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason, for the record.")] = "",
    who: Annotated[str | None, typer.Option("--who", help="Who approves of it; the user when absent.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Also where gates are not met; the record says so.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Measure the gates, and change nothing.")] = False,
    rollback: Annotated[bool, typer.Option("--rollback", help="Back to the version that had it before.")] = False,
    root: Root = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Give a version of a model an alias, if it meets the gates of its spec; exit with 1 when it does not."""
    with messages(debug, as_json):
        from treadle.jobs.registry.promotion import promote as promoted
        from treadle.jobs.spec import root_of

        record = promoted(
            model, alias, root_of(root), who=who, why=why, force=force, dry_run=dry_run, rollback=rollback
        )
        if as_json:
            print(json.dumps({**record, "dry_run": dry_run}))
        else:
            from treadle.jobs.commands import models_console

            models_console.show_promotion(record, dry_run)


def register(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    app.command()(models)
    app.command()(promote)
