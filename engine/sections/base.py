"""What all sections of a spec have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A frozen part of a spec that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)
