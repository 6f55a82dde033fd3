"""Commands that ask where a run came from: a row's lineage, the run made again, its events for OpenLineage."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from treadle.errors import RequestError
from treadle.jobs.commands.options import Debug, Json, Quiet, Root, Workers, messages

RunId = Annotated[str, typer.Argument(metavar="RUN", help="Run id, or the start of one.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    for command in (lineage, reproduce, openlineage):
        app.command()(command)


def lineage(
    row_id: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="Of a row: a value of data.id, else its number in the input.", show_default=False
        ),
    ],
    run: Annotated[
        str | None,
        typer.Option("--run", help="Run id, or the start of one; else the newest that succeeded.", show_default=False),
    ] = None,
    job: Annotated[
        str | None, typer.Option("--job", help="Its newest run, where a root has several jobs.", show_default=False)
    ] = None,
    table: Annotated[
        str | None,
        typer.Option(
            "--table",
            help="Where it is looked for: predictions, explanations, features or etl; the first that there is.",
            show_default=False,
        ),
    ] = None,
    root: Root = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Follow a row back: prediction, contributions, features, raw row, model, input, spec, code, environment."""
    with messages(debug, as_json):
        from treadle.jobs.lineage import find_run, lineage_of
        from treadle.jobs.spec import root_of

        found = lineage_of(find_run(root_of(root), run, job), row_id, table)
        if as_json:
            print(json.dumps(found.described(), default=str))
        else:
            from treadle.jobs.commands import lineage_console

            lineage_console.show_lineage(found)


def reproduce(
    run: RunId,
    out: Annotated[
        str | None,
        typer.Option("--out", help="Artifacts root of it, an empty folder; else one below --root.", show_default=False),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave it there when it has been compared.")] = False,
    tolerance: Annotated[
        float, typer.Option(min=0.0, help="Largest accepted difference of numbers, as a part of them or of 1.")
    ] = 1e-6,
    verify: Annotated[
        bool, typer.Option("--verify", help="Exit with 1 unless all is equal within the tolerance.")
    ] = False,
    workers: Workers = None,
    root: Root = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Make a run again from its manifest, in a root of its own, and compare every table and the model."""
    with messages(debug, as_json):
        from treadle.jobs.commands import console
        from treadle.jobs.reproduce import reproduce as again
        from treadle.jobs.spec import root_of

        place = None if out is None else root_of(out)
        with console.listener(quiet or as_json) as listener:
            found = again(
                root_of(root), run, out=place, keep=keep, workers=workers, tolerance=tolerance, listener=listener
            )
        if as_json:
            print(json.dumps(found.described()))
        else:
            from treadle.jobs.commands import lineage_console

            lineage_console.show_reproduction(found)
    if verify and not found.right:
        raise typer.Exit(1)


def openlineage(
    run: RunId,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.jsonl", help="Write them there.", show_default=False)
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            envvar="OPENLINEAGE_URL",
            help="Send them to this URL; a key for it in OPENLINEAGE_API_KEY.",
            show_default=False,
        ),
    ] = None,
    namespace: Annotated[
        str, typer.Option(envvar="OPENLINEAGE_NAMESPACE", help="The namespace of the job.")
    ] = "treadle",
    root: Root = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Tell a run as OpenLineage events, a JSON document a line: printed, written to a file, or sent."""
    with messages(debug):
        from treadle.jobs.openlineage import events_of, send, to_lines
        from treadle.jobs.run import load_run
        from treadle.jobs.spec import root_of

        if out is not None and not out.absolute().parent.is_dir():
            raise RequestError(f"--out: there is no folder '{out.absolute().parent}'.")
        events = events_of(load_run(root_of(root), run), namespace)
        lines = to_lines(events)
        if out is not None:
            out.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        if to is not None:
            send(events, to)
        if out is None and to is None:
            print("\n".join(lines))
        elif not quiet:
            places = [str(place) for place in (out, to) if place is not None]
            print(f"{len(lines)} events: {' and '.join(places)}", file=sys.stderr)
