"""What commands have in common: options, and errors as messages with an exit status."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from treadle.errors import RequestError, TreadleError, unreachable
from treadle.signals import terminable

Spec = Annotated[Path, typer.Argument(help="Job spec: a YAML or JSON file.", show_default=False)]
Paths = Annotated[list[str], typer.Argument(help="File, folder, glob or URL; or several.", show_default=False)]
Format = Annotated[str | None, typer.Option("--format", help="As data.format of a spec; else guessed from the names.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Local worker processes.")]
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


@contextlib.contextmanager
def messages(debug: bool, as_json: bool = False) -> Iterator[None]:
    """Errors become one readable message, after the traceback when debugging, and an exit status."""
    try:
        with terminable():
            yield
    except typer.Exit:
        raise
    except KeyboardInterrupt:
        print("treadle: cancelled; nothing was published", file=sys.stderr)
        raise typer.Exit(130) from None
    except TreadleError as error:
        _refused(error, debug, as_json)
    except BrokenPipeError:
        # The reader of our output, such as head, has read enough; what is left to flush goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from None
    except Exception as error:
        if (found := unreachable(error)) is not None:
            _refused(found, debug, as_json)
        if debug:
            traceback.print_exc()
        hint = "" if debug else "; --debug shows where"
        print(f"treadle: {type(error).__name__}: {error}\nThis is a bug in Treadle{hint}.", file=sys.stderr)
        raise typer.Exit(1) from None


def _refused(error: TreadleError, debug: bool, as_json: bool) -> NoReturn:
    if debug:
        traceback.print_exc()
    if as_json:
        print(json.dumps({"status": "error", "error": str(error)}))
    print(f"treadle: {error}", file=sys.stderr)
    raise typer.Exit(2 if isinstance(error, RequestError) else 1) from None


def whole(text: str) -> int:
    """A number of rows, as 1000000 or 1e6."""
    try:
        number = float(text.replace("_", ""))
    except ValueError:
        number = 0.5
    if not number.is_integer():
        raise RequestError(f"--rows: '{text}' is no whole number; write 1000000 or 1e6.")
    return int(number)
