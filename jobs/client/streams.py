"""Bytes of streams as lines of a log and as events."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, cast

Kind = Literal["stage", "state", "end"]


@dataclass(frozen=True)
class Event:
    """Something that happened to a job."""

    id: str
    """Events after it are asked for by it."""
    kind: Kind
    """`stage`: a stage's progress; `state`: another state; `end`: the job is done, nothing follows."""
    data: dict[str, Any]
    """Of a stage `time`, `stage`, `event` and `attempt`; of a state `before`, `after`, `reason`; at the end the job."""


class Lines:
    """Cuts text into lines, wherever the bytes are cut; bytes that are no UTF-8 become replacement characters."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def feed(self, chunk: bytes) -> list[str]:
        """The lines that are complete now, without their ends."""
        *lines, self._rest = (self._rest + self._decoder.decode(chunk)).split("\n")
        return lines

    def rest(self) -> list[str]:
        """A last line that nothing ended."""
        rest = self._rest + self._decoder.decode(b"", final=True)
        self._rest = ""
        return [rest] if rest else []


class ServerSentEvents:
    """Reads events from a text/event-stream; one that is cut off is left out, for it will be sent again."""

    def __init__(self) -> None:
        self._lines = Lines()
        self._fields: dict[str, str] = {}

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """The events that are complete now. Comments, by which a service keeps the connection alive, are none."""
        for line in self._lines.feed(chunk):
            line = line.removesuffix("\r")
            if line:
                name, _, value = line.partition(":")
                value = value.removeprefix(" ")
                if name == "data" and "data" in self._fields:
                    value = f"{self._fields['data']}\n{value}"
                self._fields[name] = value
                continue
            fields, self._fields = self._fields, {}
            if "data" in fields and fields.get("event") in ("stage", "state", "end"):
                yield Event(fields.get("id", ""), cast(Kind, fields["event"]), json.loads(fields["data"]))
