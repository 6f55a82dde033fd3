"""Commands about versions of published tables: list them, compare them, go back to those of an earlier run."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from treadle.jobs.commands.options import Debug, Json, Quiet, Root, messages


def register(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    for command in (tables, diff, rollback):
        app.command()(command)


def tables(
    table: Annotated[
        str | None,
        typer.Argument(
            metavar="[TABLE]",
            help="job/table, or table where one job has it; @ and a version or run id for that one version.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most versions of a table, the newest.")] = 20,
    root: Root = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List the tables under a root, or the versions of one."""
    with messages(debug, as_json):
        from treadle.jobs.spec import root_of
        from treadle.jobs.tables.catalogue import history, list_tables

        where = root_of(root)
        found = list_tables(where) if table is None else history(where, table, limit)
        if as_json:
            print(json.dumps(found))
        else:
            from treadle.jobs.commands import tables_console

            if isinstance(found, list):
                tables_console.show_tables(found, where)
            else:
                tables_console.show_history(found)


def diff(
    left: Annotated[str, typer.Argument(metavar="OLD", help="TABLE@VERSION, TABLE@RUN, or a run.", show_default=False)],
    right: Annotated[str, typer.Argument(metavar="NEW", help="Another of the same kind.", show_default=False)],
    key: Annotated[
        str | None,
        typer.Option(metavar="COLUMNS", help="Pair rows by these columns, e.g. customer,day.", show_default=False),
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(
            min=0, help="Numbers that differ by no more than this part of the larger one (or of 1) are equal."
        ),
    ] = 0.0,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 when there are differences.")] = False,
    root: Root = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Compare two versions of tables, or all tables of two runs: columns, rows by key, metrics.

    Exit status: 0 it is compared; 1 with --exit-code, there are differences; 2 the request is wrong.
    """
    with messages(debug, as_json):
        from treadle.jobs.tables.diff import diff as compared

        columns = None if key is None else [name.strip() for name in key.split(",")]
        found = compared(left, right, root, columns, tolerance)
        if as_json:
            print(json.dumps(found.described(), default=str))
        else:
            from treadle.jobs.commands import tables_console

            tables_console.show_diff(found)
    if exit_code and not found.same:
        raise typer.Exit(1)


def rollback(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="Run id, or the start of one.", show_default=False)],
    root: Root = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Make the tables and the model that a run published current again, all together."""
    with messages(debug, as_json):
        from treadle.jobs.commands import console, tables_console
        from treadle.jobs.tables.rollback import rollback as restored

        with console.listener(quiet or as_json) as listener:
            done = restored(run_id, root, listener)
        if as_json:
            print(json.dumps(done.described()))
        else:
            tables_console.show_rollback(done)
