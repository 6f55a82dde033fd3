"""Cards of published models, for whoever reads them outside of the bundle."""

from __future__ import annotations

from pathlib import Path

from treadle.engine.store import storage_errors
from treadle.jobs.predict import find_model


def read_card(model: str, root: str | None, format_: str | None = None, out: Path | None = None) -> str:
    """The card of `name` (its newest version) or `name:version`; written to `out` where that is given.

    Without a format it is HTML where the file is named so, else Markdown.

    Raises
    ------
    RequestError
        No such model or version, one without a card, or another format.
    """
    is_page = out is not None and out.suffix.lower() in (".html", ".htm")
    text = find_model(model, root).card_as(format_ or ("html" if is_page else "md"))
    if out is not None:
        with storage_errors(str(out)):
            out.write_text(text, encoding="utf-8")
    return text
