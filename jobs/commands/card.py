"""`treadle card`: the card of a published model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from treadle.jobs.commands.options import Debug, Root, messages


def register(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    app.command()(card)


def card(
    model: Annotated[str, typer.Argument(help="NAME or NAME:VERSION.", show_default=False)],
    format_: Annotated[
        str | None, typer.Option("--format", help="md or html; else as the file is named, else md.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write it there.", show_default=False)
    ] = None,
    root: Root = None,
    debug: Debug = False,
) -> None:
    """Print the card of a published model: what it is for, and what was measured."""
    with messages(debug):
        from treadle.jobs.card import read_card

        text = read_card(model, root, format_, out)
        if out is None:
            print(text, end="")
