"""What sets two fingerprints of a stage apart, in words."""

from __future__ import annotations

import json
from collections.abc import Container, Iterator, Mapping
from typing import Any

from treadle.engine.chain import MadeOf
from treadle.errors import listed

ABSENT = object()
CONTENT = "content"
"""Key of an input's digest, inside its section."""
LONGEST = 40
"""Characters of a value that are shown."""
LONGEST_PATH = 72
SHOWN = 4
Change = tuple[str, Any, Any]


def difference(before: MadeOf, after: MadeOf, again: Container[str]) -> str:
    """Why a stage is not what it was before: one line.

    `again` are the stages of this run that are made again, as far as they are known.
    """
    found = []
    if before.revision != after.revision:
        found.append(f"Treadle's code of it changed (revision {before.revision} -> {after.revision})")
    found += _config(before, after)
    anew = [need for need, fingerprint in after.needs.items() if before.needs.get(need) != fingerprint]
    made = [need for need in anew if need in again]
    if made:
        found.append(f"{listed(made, SHOWN)} {'is' if len(made) == 1 else 'are'} made again")
    if other := [need for need in anew if need not in again]:
        found.append(f"{listed(other, SHOWN)} {'is another one' if len(other) == 1 else 'are others'}")
    if gone := [need for need in before.needs if need not in after.needs]:
        found.append(f"{listed(gone, SHOWN)} {'is' if len(gone) == 1 else 'are'} not needed any more")
    return "; ".join(found) or "its needs have another order"


def changed_keys(before: Any, after: Any, path: str = "") -> Iterator[Change]:
    """Paths of the leaves that differ, with their values, `ABSENT` where there is none.

    Of lists what is the same at both ends is left out, so that an element that was put in or taken out is named
    by itself.
    """
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in [*before, *(key for key in after if key not in before)]:
            inner = f"{path}.{key}" if path else str(key)
            yield from changed_keys(before.get(key, ABSENT), after.get(key, ABSENT), inner)
    elif isinstance(before, list) and isinstance(after, list):
        yield from _lists(before, after, path)
    elif before is not after and before != after:
        yield path, before, after


def _lists(before: list[Any], after: list[Any], path: str) -> Iterator[Change]:
    start = 0
    while start < min(len(before), len(after)) and before[start] == after[start]:
        start += 1
    end = 0
    while end < min(len(before), len(after)) - start and before[-1 - end] == after[-1 - end]:
        end += 1
    old, new = before[start : len(before) - end], after[start : len(after) - end]
    for i in range(max(len(old), len(new))):
        one = old[i] if i < len(old) else ABSENT
        other = new[i] if i < len(new) else ABSENT
        yield from changed_keys(one, other, f"{path}.{start + i}")


def _config(before: MadeOf, after: MadeOf) -> list[str]:
    changes = list(changed_keys(before.config, after.config))
    sections = sorted(path.removesuffix(f".{CONTENT}") for path, *_ in changes if path.endswith(f".{CONTENT}"))
    found, libraries, spec = [], [], []
    for section in sections:
        of_input, changes = _parted(section, changes)
        found.append(f"the input changed: {_input(section, before, after, of_input)}")
    for path, old, new in changes:
        if path.startswith("libraries."):
            libraries.append(f"{path.removeprefix('libraries.')} {_value(old)} -> {_value(new)}")
        else:
            spec.append(f"{path}: {_value(old)} -> {_value(new)}")
    if spec:
        found.append(f"the spec changed: {_listed(spec)}")
    if libraries:
        found.append(f"a library has another version: {_listed(libraries)}")
    return found


def _parted(section: str, changes: list[Change]) -> tuple[list[Change], list[Change]]:
    """What follows from an input whose content changed, with keys inside its section, and all else."""
    keys = tuple(f"{section}.{key}" for key in (CONTENT, "version", "path.", "types."))
    inside = [(path.removeprefix(f"{section}."), old, new) for path, old, new in changes if path.startswith(keys)]
    return inside, [change for change in changes if not change[0].startswith(keys)]


def _input(section: str, before: MadeOf, after: MadeOf, changes: list[Change]) -> str:
    """Which version and columns an input has now, and which files of it are new, gone or changed."""
    said = [f"version {_value(old)} -> {_value(new)}" for key, old, new in changes if key == "version"]
    columns = [(key.removeprefix("types."), old, new) for key, old, new in changes if key.startswith("types.")]
    if columns:
        said.append(f"columns {_listed([f'{name}: {_value(old)} -> {_value(new)}' for name, old, new in columns])}")
    old, new = before.files.get(section) or {}, after.files.get(section) or {}
    told = {
        "new": [path for path in new if path not in old],
        "gone": [path for path in old if path not in new],
        "changed": [path for path in new if path in old and old[path] != new[path]],
    }
    if old and new:
        said += [f"{what} {listed(map(_end, paths), 3)}" for what, paths in told.items() if paths]
    return f"{section} ({'; '.join(said)})" if said else section


def _listed(texts: list[str]) -> str:
    """As `listed`, without cutting off what is longer than a name."""
    shown = ", ".join(texts[:SHOWN])
    return shown if len(texts) <= SHOWN else f"{shown} and {len(texts) - SHOWN} more"


def _end(path: str) -> str:
    """Of a long path its end, which tells files apart."""
    return path if len(path) <= LONGEST_PATH else f"...{path[3 - LONGEST_PATH :]}"


def _value(value: Any) -> str:
    if value is ABSENT:
        return "(absent)"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
