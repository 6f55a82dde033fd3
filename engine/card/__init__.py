"""Model cards: what a published model is, what it is for, and what was measured of it, as Markdown and as HTML.

    facts (artifacts of a run) -> content (chapters of texts, tables and charts) -> markdown | page

`card.md` and `card.html` lie in the bundle's folder and are written before `bundle.json`.
"""

from __future__ import annotations

from treadle.engine.bundle import CARDS, Bundle
from treadle.engine.card.content import card_of
from treadle.engine.card.facts import Facts
from treadle.engine.card.front import front_matter
from treadle.engine.card.markdown import markdown
from treadle.engine.card.page import page

__all__ = ["Facts", "card_of", "page", "text", "write"]


def text(facts: Facts) -> str:
    """The card as Markdown, with a front matter that model hubs read."""
    return front_matter(facts) + "\n" + markdown(card_of(facts))


def write(bundle: Bundle, facts: Facts) -> None:
    """Writes both files of a card into the bundle's folder."""
    for name, content in {CARDS["md"]: text(facts), CARDS["html"]: page(card_of(facts))}.items():
        with bundle.store.writing(f"{bundle.folder}/{name}") as file:
            file.write(content.encode())
