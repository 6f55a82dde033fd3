"""The command line. Commands are thin: what they do is in the modules that they import when called."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from treadle.errors import RequestError
from treadle.jobs.commands import card, dvc, gc, jobs, lineage, models, operating, tables
from treadle.jobs.commands.bench import bench
from treadle.jobs.commands.options import (
    Debug,
    Format,
    Fresh,
    Json,
    Paths,
    Quiet,
    Root,
    Set,
    Spec,
    Workers,
    messages,
    whole,
)
from treadle.signals import held

app = typer.Typer(
    name="treadle",
    help="One declarative ML job on a Dask cluster: ETL, training, leaderboard, explanations, versioned tables.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

app.add_typer(bench, name="bench")
app.add_typer(operating.tokens, name="tokens")
for command in (operating.up, operating.down, operating.certs):
    app.command()(command)


@app.command()
def run(
    spec: Spec,
    root: Root = None,
    set_: Set = None,
    fresh: Fresh = False,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Run a job to its end, unless nothing has changed since last time."""
    with messages(debug, as_json):
        from treadle.jobs import runner
        from treadle.jobs.commands import console

        with console.listener(quiet or as_json) as listener:
            finished = runner.run(spec, root=root, overrides=set_ or (), fresh=fresh, listener=listener)
        with held():  # it is done, and there is nothing left to cancel
            if as_json:
                print(json.dumps(finished.manifest, default=str))
            else:
                if finished.reused and not quiet:
                    said = f"Nothing has changed since {finished.id}, which is shown; --fresh runs the job again."
                    print(said, file=sys.stderr)
                console.show_run(finished, full=False)


@app.command()
def check(spec: Spec, root: Root = None, set_: Set = None, as_json: Json = False, debug: Debug = False) -> None:
    """Check a spec against its real input, without running it."""
    with messages(debug, as_json):
        from treadle.jobs.check import check_spec

        found = check_spec(spec, root, set_ or ())
        if as_json:
            print(json.dumps(found, default=str))
        else:
            from treadle.jobs.commands import console

            console.show_check(found)


@app.command()
def plan(
    spec: Spec,
    root: Root = None,
    set_: Set = None,
    fresh: Fresh = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show what a run would do: stages, what is cached, partitions, memory."""
    with messages(debug, as_json):
        from treadle.jobs.plan import make_plan
        from treadle.jobs.spec import load_spec

        loaded = load_spec(spec, set_ or ())
        made = make_plan(loaded, loaded.root(root), fresh)
        if as_json:
            print(json.dumps(made.describe(), default=str))
        else:
            from treadle.jobs.commands import console

            console.show_plan(made)


@app.command()
def predict(
    model: Annotated[str, typer.Option(help="NAME, NAME:VERSION or NAME@ALIAS.", show_default=False)],
    input_: Annotated[
        list[str],
        typer.Option("--input", help="File, folder, glob or URL; may be given several times.", show_default=False),
    ],
    output: Annotated[str, typer.Option(help="Folder of the predictions.", show_default=False)],
    explain: Annotated[bool, typer.Option("--explain", help="Also write the contribution of every feature.")] = False,
    format_: Annotated[
        str, typer.Option("--format", help="parquet, or delta for a new version of a Delta table.")
    ] = "parquet",
    workers: Workers = None,
    root: Root = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Predict the rows of files with a published model."""
    with messages(debug, as_json):
        from treadle.jobs.commands import console
        from treadle.jobs.predict import predict_files

        with console.listener(quiet or as_json) as listener:
            done = predict_files(
                model,
                input_,
                output,
                explain=explain,
                format_=format_,
                root=root,
                workers=workers,
                listener=listener,
            )
        if as_json:
            print(json.dumps(done))
        elif not quiet:
            console.show_predicted(done)


@app.command()
def profile(
    path: Paths,
    format_: Format = None,
    target: Annotated[str | None, typer.Option(help="The column to predict: what tells it, and models for it.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.json", help="Write the profile as JSON.", show_default=False)
    ] = None,
    spec: Annotated[
        Path | None,
        typer.Option("--spec", metavar="FILE.yaml", help="Write a spec to start from.", show_default=False),
    ] = None,
    workers: Workers = None,
    set_: Set = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Profile an input in one pass, and propose a spec to start from."""
    with messages(debug, as_json):
        from treadle.jobs.commands import console
        from treadle.jobs.profile import check_new, profile_input, write_profile, write_spec

        if spec is not None:
            check_new(spec)
        with console.listener(quiet or as_json) as listener:
            found = profile_input(
                path,
                format_=format_,
                target=target,
                workers=workers,
                overrides=set_ or (),
                beside=spec.absolute().parent if spec else None,
                listener=listener,
            )
        if out is not None:
            write_profile(found, out)
        if spec is not None:
            write_spec(found.spec, spec)
        if as_json:
            print(json.dumps(found.described()))
        else:
            from treadle.jobs.commands import profile_console

            profile_console.show(found, out, spec)


@app.command()
def auto(
    path: Paths,
    target: Annotated[str, typer.Option(help="The column to predict.", show_default=False)],
    budget: Annotated[str, typer.Option(help="Wall clock of all of it, e.g. 90s or 10m.")] = "10m",
    metric: Annotated[
        str | None, typer.Option(help="As metric of a spec; AUC, log loss or RMSE when absent.", show_default=False)
    ] = None,
    folds: Annotated[int, typer.Option(min=2, help="Folds that models are compared by.")] = 5,
    seed: Annotated[int | None, typer.Option(min=0, help="As seed of a spec.", show_default=False)] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE.yaml",
            help="The spec that trains the winner; else auto-RUN.yaml.",
            show_default=False,
        ),
    ] = None,
    format_: Format = None,
    workers: Workers = None,
    root: Root = None,
    set_: Set = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Find a model within a time: profile, race all models, tune and mix the best; write the spec that trains it."""
    with messages(debug, as_json):
        from treadle.jobs.auto import auto as search
        from treadle.jobs.commands import console
        from treadle.jobs.profile import check_new, write_spec

        if out is not None:
            check_new(out, "--out")
        with console.listener(quiet or as_json) as listener:
            found = search(
                path,
                target,
                budget,
                metric=metric,
                folds=folds,
                seed=seed,
                format_=format_,
                workers=workers,
                root=root,
                overrides=set_ or (),
                beside=out.absolute().parent if out else None,
                listener=listener,
            )
        with held():
            written = out or Path(f"auto-{found.run.id}.yaml")
            write_spec(found.spec, written)
            if as_json:
                print(json.dumps({**found.run.manifest, "spec_file": str(written)}, default=str))
            else:
                console.show_run(found.run, full=False)
                print(f"spec      {written}: treadle run {written}")


@app.command()
def runs(root: Root = None, as_json: Json = False, debug: Debug = False) -> None:
    """List the runs under a root, the newest first."""
    with messages(debug, as_json):
        from treadle.jobs.run import list_runs
        from treadle.jobs.spec import root_of

        rows = list_runs(root_of(root))
        if as_json:
            print(json.dumps(rows))
        else:
            from treadle.jobs.commands import console

            console.show_runs(rows, root_of(root))


@app.command()
def show(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="Run id, or the start of one.", show_default=False)],
    root: Root = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show a run: leaderboard, cost of each stage, tables and versions, warnings, and what it was made from."""
    with messages(debug, as_json):
        from treadle.jobs.run import load_run
        from treadle.jobs.spec import root_of

        found = load_run(root_of(root), run_id)
        if as_json:
            print(json.dumps(found.manifest))
        else:
            from treadle.jobs.commands import console, lineage_console
            from treadle.jobs.provenance import provenance

            console.show_run(found, full=True)
            lineage_console.show_provenance(provenance(found))


@app.command()
def schema(debug: Debug = False) -> None:
    """Print the JSON Schema of a spec, for editors."""
    with messages(debug):
        from treadle.jobs.spec import json_schema

        print(json.dumps(json_schema(), indent=1))


@app.command()
def warmup(debug: Debug = False) -> None:
    """Compile the kernels once, so that no job has to wait for it; later processes find them on disk."""
    with messages(debug):
        from treadle.engine.warmup import warm_up

        print(f"kernels ready in {warm_up():.1f} s")


@app.command()
def doctor(
    device: Annotated[str, typer.Option(help="What jobs are to run on: auto, cpu or cuda.")] = "auto",
    root: Root = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Look at this installation and its GPUs; exit with 1 when a job with this device could not run."""
    with messages(debug, as_json):
        from treadle.jobs.doctor import diagnose
        from treadle.jobs.spec import root_of

        if device not in (allowed := ("auto", "cpu", "cuda")):
            raise RequestError(f"--device: '{device}' is not known. Allowed: [{', '.join(allowed)}].")
        found = diagnose(root_of(root))
        failed = found.failed(device)
        if as_json:
            print(json.dumps(found.described()))
        else:
            from treadle.jobs.commands import console

            console.show_diagnosis(found, device)
    if failed:
        raise typer.Exit(1)


@app.command()
def parity(
    spec: Spec,
    root: Root = None,
    set_: Set = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows whose values are compared.")] = 16,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Compare a job on the CPU with the same on a GPU, or in the CUDA simulator; exit with 1 when they differ."""
    with messages(debug, as_json):
        from treadle.jobs.commands import console
        from treadle.jobs.parity import parity as compared

        with console.listener(quiet or as_json) as listener:
            found = compared(spec, root, set_ or (), rows, listener)
        if as_json:
            print(json.dumps(found.described()))
        else:
            console.show_parity(found)
    if not found.right:
        raise typer.Exit(1)


@app.command("make-data")
def make_data(
    kind: Annotated[str, typer.Argument(help="What to make: transactions.")],
    out: Annotated[Path, typer.Option(help="Folder to write into.", show_default=False)],
    rows: Annotated[str, typer.Option(help="Number of rows, e.g. 1e6.")] = "1e6",
    partitions: Annotated[int, typer.Option(help="Number of files; the rows are the same whatever it is.")] = 8,
    seed: Annotated[int, typer.Option(help="Another seed, other rows.")] = 7,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Make data to try Treadle on: card transactions and their customers."""
    with messages(debug):
        from treadle.jobs import make_data as maker

        if kind != "transactions":
            raise RequestError(f"make-data: '{kind}' is not known. Allowed: [transactions].")
        made: dict[str, Any] = maker.make_transactions(out, whole(rows), partitions, seed=seed)
        if not quiet:
            print(json.dumps(made, default=str))


gc.register(app)
jobs.register(app)
models.register(app)
tables.register(app)
card.register(app)
dvc.register(app)
lineage.register(app)
