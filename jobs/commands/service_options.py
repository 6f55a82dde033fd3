"""What commands that ask a job service have in common: which service, what is asked of a job, errors."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from treadle.jobs.commands.options import messages

if TYPE_CHECKING:
    from pydantic import BaseModel

    from treadle.jobs.client import Client

RETRIES = 2
"""Tries after the first before a command says that no service answers; one that waits tries five times as often."""
STILL_RUNNING = 124
"""Exit status when the time to wait is up, as of `timeout`."""

Url = Annotated[
    str | None,
    typer.Option("--url", help="The service; else TREADLE_URL, else http://127.0.0.1:8844.", show_default=False),
]
Token = Annotated[
    str | None,
    typer.Option("--token", help="Else TREADLE_TOKEN, which others on this machine do not see.", show_default=False),
]
Ca = Annotated[
    str | None,
    typer.Option("--ca", metavar="FILE", help="CA of the service's certificate; else TREADLE_CA.", show_default=False),
]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="Job id, or the start of one.", show_default=False)]
JobIds = Annotated[list[str], typer.Argument(metavar="JOB...", help="Job ids, or starts of them.", show_default=False)]
Priority = Annotated[int, typer.Option(min=-1000, max=1000, help="Jobs with a higher one are started first.")]
AttemptSeconds = Annotated[
    float | None,
    typer.Option("--timeout", metavar="SECONDS", help="What an attempt may take; else the service's own limit."),
]
WaitSeconds = Annotated[
    float | None,
    typer.Option("--timeout", metavar="SECONDS", min=0, help="Give up waiting after them, with 124; jobs go on."),
]
Retries = Annotated[
    int | None,
    typer.Option(min=0, max=100, help="Attempts after the first when a machine is at fault; else the service's own."),
]


@contextlib.contextmanager
def service(url: str | None, token: str | None, ca: str | None, debug: bool, as_json: bool = False) -> Iterator[Client]:
    """A client whose errors are messages with an exit status."""
    with messages(debug, as_json):
        from treadle.jobs.client import Client, StillRunning

        with Client(url, token, ca=ca, retries=RETRIES) as client:
            try:
                yield client
            except StillRunning as error:
                if as_json:
                    print(json.dumps({"status": "error", "error": str(error)}))
                print(f"treadle: {error}", file=sys.stderr)
                raise typer.Exit(STILL_RUNNING) from None


def print_json(document: BaseModel | Sequence[BaseModel]) -> None:
    """One JSON document."""
    if isinstance(document, Sequence):
        print(json.dumps([one.model_dump(mode="json") for one in document]))
    else:
        print(document.model_dump_json())
