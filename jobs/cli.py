"""The command line. Commands are thin: what they do is in the modules that they import when called."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from treadle.errors import RequestError, TreadleError
from treadle.signals import held, terminable

app = typer.Typer(
    name="treadle",
    help="One declarative ML job on a Dask cluster: ETL, training, leaderboard, explanations, versioned tables.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

bench = typer.Typer(help="Measure Treadle beside other libraries.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(bench, name="bench")

Spec = Annotated[Path, typer.Argument(help="Job spec: a YAML or JSON file.", show_default=False)]
Root = Annotated[
    str | None,
    typer.Option("--root", help="Artifacts root; else the spec's, else TREADLE_ROOT, else 'artifacts'."),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override any leaf, e.g. data.path=other.parquet."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Do every stage again, also those that are cached.")]
Models = Annotated[
    list[str] | None,
    typer.Option("--model", metavar="TEXT", help="Only models whose name contains TEXT; may be given several times."),
]
Repeats = Annotated[int, typer.Option(min=1, help="Turns, of which medians are taken.")]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="FILE", help="Write the result as JSON; else a checkout's results/, if all ran."),
]


@contextlib.contextmanager
def messages(debug: bool, as_json: bool = False) -> Iterator[None]:
    """Errors become one readable message, after the traceback when debugging, and an exit status."""
    try:
        with terminable():
            yield
    except KeyboardInterrupt:
        print("treadle: cancelled; nothing was published", file=sys.stderr)
        raise typer.Exit(130) from None
    except TreadleError as error:
        if debug:
            traceback.print_exc()
        if as_json:
            print(json.dumps({"status": "error", "error": str(error)}))
        print(f"treadle: {error}", file=sys.stderr)
        raise typer.Exit(2 if isinstance(error, RequestError) else 1) from None
    except BrokenPipeError:
        # The reader of our output, such as head, has read enough; what is left to flush goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from None
    except Exception as error:
        if debug:
            traceback.print_exc()
        hint = "" if debug else "; --debug shows where"
        print(f"treadle: {type(error).__name__}: {error}\nThis is a bug in Treadle{hint}.", file=sys.stderr)
        raise typer.Exit(1) from None


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
    """Run a job to its end."""
    with messages(debug, as_json):
        from treadle.jobs import console, runner

        with console.listener(quiet or as_json) as listener:
            finished = runner.run(spec, root=root, overrides=set_ or (), fresh=fresh, listener=listener)
        with held():  # it is done, and there is nothing left to cancel
            if as_json:
                print(json.dumps(finished.manifest, default=str))
            else:
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
            from treadle.jobs import console

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
            from treadle.jobs import console

            console.show_plan(made)


@app.command()
def predict(
    model: Annotated[str, typer.Option(help="NAME or NAME:VERSION.", show_default=False)],
    input_: Annotated[
        list[str],
        typer.Option("--input", help="File, folder, glob or URL; may be given several times.", show_default=False),
    ],
    output: Annotated[str, typer.Option(help="Folder of the predictions.", show_default=False)],
    explain: Annotated[bool, typer.Option("--explain", help="Also write the contribution of every feature.")] = False,
    format_: Annotated[
        str, typer.Option("--format", help="parquet, or delta for a new version of a Delta table.")
    ] = "parquet",
    workers: Annotated[int | None, typer.Option(min=1, help="Local worker processes.")] = None,
    root: Root = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Predict the rows of files with a published model."""
    with messages(debug, as_json):
        from treadle.jobs import console
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
    path: Annotated[list[str], typer.Argument(help="File, folder, glob or URL; or several.", show_default=False)],
    format_: Annotated[
        str | None, typer.Option("--format", help="As data.format of a spec; else guessed from the names.")
    ] = None,
    target: Annotated[str | None, typer.Option(help="The column to predict: what tells it, and models for it.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.json", help="Write the profile as JSON.", show_default=False)
    ] = None,
    spec: Annotated[
        Path | None,
        typer.Option("--spec", metavar="FILE.yaml", help="Write a spec to start from.", show_default=False),
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Local worker processes.")] = None,
    set_: Set = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Profile an input in one pass, and propose a spec to start from."""
    with messages(debug, as_json):
        from treadle.jobs import console
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
            write_spec(found, spec)
        if as_json:
            print(json.dumps(found.described()))
        else:
            from treadle.jobs import profile_console

            profile_console.show(found, out, spec)


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
            from treadle.jobs import console

            console.show_runs(rows, root_of(root))


@app.command()
def show(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="Run id, or the start of one.", show_default=False)],
    root: Root = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show a run: leaderboard, cost of each stage, tables and versions, warnings."""
    with messages(debug, as_json):
        from treadle.jobs.run import load_run
        from treadle.jobs.spec import root_of

        found = load_run(root_of(root), run_id)
        if as_json:
            print(json.dumps(found.manifest))
        else:
            from treadle.jobs import console

            console.show_run(found, full=True)


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
            from treadle.jobs import console

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
        from treadle.jobs import console
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
        made: dict[str, Any] = maker.make_transactions(out, _whole(rows), partitions, seed=seed)
        if not quiet:
            print(json.dumps(made, default=str))


@bench.command("treeshap")
def bench_treeshap(
    model: Models = None, repeats: Repeats = 3, out: Out = None, as_json: Json = False, debug: Debug = False
) -> None:
    """Contributions, beside XGBoost, LightGBM, shap and woodelf."""
    with messages(debug, as_json):
        from treadle.benchmarks.treeshap import BENCHMARK

        _measured(BENCHMARK.run(model or (), repeats, out, _say(as_json)), as_json)


@bench.command("predict")
def bench_predict(
    model: Models = None, repeats: Repeats = 3, out: Out = None, as_json: Json = False, debug: Debug = False
) -> None:
    """Margins, beside XGBoost, LightGBM, treelite and scikit-learn."""
    with messages(debug, as_json):
        from treadle.benchmarks.predict import BENCHMARK

        _measured(BENCHMARK.run(model or (), repeats, out, _say(as_json)), as_json)


@bench.command("fraud")
def bench_fraud(
    rows: Annotated[str, typer.Option(help="Number of rows, e.g. 1e6.")] = "1e6",
    repeats: Repeats = 3,
    data: Annotated[Path | None, typer.Option(help="Folder of make-data transactions; else made anew.")] = None,
    out: Out = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """A whole job, beside Polars and XGBoost by hand."""
    with messages(debug, as_json):
        from treadle.benchmarks import fraud

        _measured(fraud.run(_whole(rows), repeats, data, out, _say(as_json)), as_json)


@bench.command("gpu")
def bench_gpu(
    model: Models = None,
    minutes: Annotated[float, typer.Option(min=1.0, help="Time for all of it.")] = 8.0,
    rows: Annotated[str, typer.Option(help="Number of rows of the job, e.g. 1e7.")] = "1e6",
    out: Out = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """All that only a GPU can show: the kernels' tests, and their speed beside XGBoost's CUDA code."""
    with messages(debug, as_json):
        from treadle.benchmarks import gpu_check

        result = gpu_check.run(minutes, tuple(model or ()), _whole(rows), out, _say(as_json))
        _measured(result, as_json)
    if not result["right"]:
        raise typer.Exit(1)


def _say(as_json: bool) -> Callable[[str], None]:
    return (lambda _: None) if as_json else functools.partial(print, flush=True)


def _measured(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(result))


def _whole(text: str) -> int:
    try:
        number = float(text.replace("_", ""))
    except ValueError:
        number = 0.5
    if not number.is_integer():
        raise RequestError(f"--rows: '{text}' is no whole number; write 1000000 or 1e6.")
    return int(number)
