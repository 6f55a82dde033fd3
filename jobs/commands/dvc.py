"""`treadle dvc`: jobs as stages of DVC."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from treadle.jobs.commands.options import Debug, Json, Root, Set, Spec, messages

dvc = typer.Typer(name="dvc", help="Jobs as stages of DVC.", no_args_is_help=True, rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    """Adds the group to the command line."""
    app.add_typer(dvc, name="dvc")


@dvc.command("export")
def export(
    spec: Spec,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of dvc.yaml.")] = Path("."),
    force: Annotated[bool, typer.Option("--force", help="Also write over what something else wrote.")] = False,
    root: Root = None,
    set_: Set = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a job as a stage of dvc.yaml, with pointer files of its inputs."""
    with messages(debug, as_json):
        from treadle.jobs.dvc import export as exporting

        done = exporting.export(spec, out, root, set_ or (), force)
        if as_json:
            print(json.dumps(done.described()))
        else:
            from treadle.jobs.commands import dvc_console

            dvc_console.show_export(done)


@dvc.command("metrics")
def metrics(
    job: Annotated[str, typer.Argument(metavar="JOB", help="The job's name.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the files.", show_default=False)],
    root: Root = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write the numbers of a job's newest run for dvc metrics and dvc plots."""
    with messages(debug, as_json):
        from treadle.jobs.dvc.metrics import write_metrics

        written = write_metrics(job, root, out)
        if as_json:
            print(json.dumps({name: str(path) for name, path in written.items()}))
        else:
            print("\n".join(str(path) for path in written.values()))
