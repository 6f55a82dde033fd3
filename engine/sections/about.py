"""The section `about` of a spec: what its model's card says that no run can measure."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from treadle.engine.sections.base import Section

Text = Annotated[str, Field(min_length=1, max_length=10_000)]
Texts = Text | tuple[Text, ...]
"""One text, or a list of them."""


class About(Section):
    """For whoever uses the model, or answers for it; every key may be absent, and the card says so then."""

    intended_use: Texts = ()
    """What the model is for, and for whom."""
    out_of_scope: Texts = ()
    """What it is not to be used for."""
    owners: Texts = ()
    contact: Text | None = None
    licence: Text | None = None
    """An SPDX name, e.g. Apache-2.0, or any other text."""
    limitations: Texts = ()
    """Those that are known besides what is measured."""
    ethical_considerations: Texts = ()
    references: Texts = ()
    """Papers, tickets, links."""


def texts_of(found: Texts | None) -> tuple[str, ...]:
    """As a list, whether one was given, several or none."""
    if found is None:
        return ()
    return (found,) if isinstance(found, str) else found
