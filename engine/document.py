"""What stages and readers write down: frozen values that are JSON, files by their names, and digests of values."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict


class Document(BaseModel):
    """A frozen, JSON-able value; floats may be infinite or NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")


class Part(Document):
    """A Parquet file that a stage wrote."""

    path: str
    rows: int
    bytes: int
    columns: str = ""
    """Digest of the names and types of its columns; empty where nobody took one."""


def digest(value: Any) -> str:
    """16 hexadecimal digits for any JSON-able value."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
