"""Job specs as plain data that knows its lines: read from YAML 1.2, JSON or a mapping."""

from __future__ import annotations

import json
import numbers
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from treadle.errors import RequestError, did_you_mean
from treadle.jobs.problems import KeyPath, Problem, SpecError, described, dotted

if TYPE_CHECKING:
    from ruamel.yaml.nodes import Node

SUFFIXES = (".yaml", ".yml", ".json")
# No job needs more; aliases in YAML can make a small file expand without end.
MAX_DEPTH = 100
MAX_VALUES = 200_000

_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+|\n')

_HALF = re.compile("[\ud800-\udfff]")

_TAG = "tag:yaml.org,2002:"
_TEXT_TAGS = {_TAG + name for name in ("str", "timestamp", "value", "merge")}
_PLAIN_TAGS = {_TAG + name for name in ("int", "float", "bool", "null", "map", "seq")} | _TEXT_TAGS

_TOO_DEEP = f"nested more than {MAX_DEPTH} levels deep, or contains itself"
_REMEDIES = (
    (r"character '\t'", "indent with spaces, not tabs"),
    ("cannot start any token", "write the text in quotes"),
    ("mapping values are not allowed", "write a text that contains ': ' in quotes"),
    ("undefined alias", "write a text that starts with '*' in quotes"),
    ("a single document", "write each job to a file of its own"),
)


@dataclass
class Document:
    """A spec as plain dicts, lists, texts, numbers, booleans and None, each item with the line of its key."""

    name: str
    data: Any = None
    lines: dict[KeyPath, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    overridden: set[KeyPath] = field(default_factory=set)

    def report(self, path: KeyPath, value: object, message: str) -> Problem:
        """A problem at `path`, with the line of the nearest key that has one."""
        above = [path[:length] for length in range(len(path), -1, -1)]
        if self.overridden.intersection(above):
            return Problem(dotted(path), None, value, f"{message} (from --set)")
        line = next((self.lines[key] for key in above if key in self.lines), None)
        return Problem(dotted(path), line, value, message)


def read(source: str | os.PathLike[str] | Mapping[str, Any]) -> Document:
    """The document in a .yaml, .yml or .json file, or of a mapping.

    Duplicate keys and YAML tags are noted in `problems`; a file that cannot be parsed is a SpecError,
    one that cannot be found or read a RequestError.
    """
    if isinstance(source, Mapping):
        document = Document("Job spec")
        document.data = _Reader(document).plain(source, ())
        return document
    if not isinstance(source, str | os.PathLike):
        raise RequestError(f"A job spec is a file or a mapping, not {described(source)}.")
    path = Path(os.fsdecode(source))
    document = Document(str(path))
    text = _file_text(path)
    reader = _Reader(document)
    document.data = reader.json(text) if path.suffix.lower() == ".json" else reader.yaml(text, ())
    return document


def read_value(text: str, path: KeyPath) -> tuple[object, list[Problem]]:
    """The value that `text` stands for on the command line, and the problems in it.

    Brackets, braces and quotes are read as YAML; all else is one number, word or text, so that
    `*.parquet` and `a > 1 # b` need no quotes beyond the shell's.
    """
    document = Document("--set")
    text = text.strip()
    if text[:1] not in tuple("[{\"'"):
        return _scalar(text), []
    try:
        value = _Reader(document).yaml(text, path)
    except SpecError as error:
        value, document.problems = None, list(error.problems)
    return value, document.problems


def _file_text(path: Path) -> str:
    if path.suffix.lower() not in SUFFIXES:
        raise RequestError(f"Spec file {str(path)!r} must be named .yaml, .yml or .json.")
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise _not_found(path) from None
    except UnicodeDecodeError as error:
        raise RequestError(f"Spec file '{path}' is not UTF-8 text (byte {error.start + 1}).") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RequestError(f"Spec file {str(path)!r} cannot be read: {reason}.") from None


def _not_found(path: Path) -> RequestError:
    folder = path.parent.absolute()
    if not folder.is_dir():
        return RequestError(f"Spec file '{path.name}' was not found: there is no folder {folder}.")
    near = ""
    with suppress(PermissionError):
        specs = [name for name in os.listdir(folder) if name.lower().endswith(SUFFIXES)]
        near = did_you_mean(path.name, specs)
    return RequestError(f"Spec file '{path.name}' was not found in {folder}.{near}")


def _scalar(text: str) -> str | int | float | bool | None:
    """What an unquoted scalar means in YAML 1.2's core schema; a date stays a text."""
    if text in _WORDS:
        return _WORDS[text]
    # A number that no setting needs and Python may refuse to read stays a text too.
    if len(text) > 300:
        return text
    if _INTEGER.fullmatch(text):
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    if _FLOAT.fullmatch(text):
        return float(text.replace(".", "") if text[-1] in "fFnN" else text)
    return text


class _Reader:
    """Converts one text or mapping to plain data, noting lines and problems in the document."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.values = 0

    def fail(self, line: int | None, message: str) -> NoReturn:
        raise SpecError(self.document.name, (Problem("", line, None, message),))

    def complain(self, path: KeyPath, line: int | None, value: object, message: str) -> None:
        self.document.problems.append(Problem(dotted(path), line, value, message))

    def enter(self, path: KeyPath, line: int | None) -> None:
        """Counts a value, and refuses what only a mistake or an attack would write."""
        self.values += 1
        if line is not None:
            self.document.lines.setdefault(path, line)
        if len(path) > MAX_DEPTH:
            self.fail(line, _TOO_DEEP)
        if self.values > MAX_VALUES:
            self.fail(line, f"more than {MAX_VALUES} values, counting those that aliases repeat")

    def checked[V](self, value: V, line: int | None) -> V:
        """The value, unless it is a text that cannot be written to a file."""
        if isinstance(value, str) and _HALF.search(value):
            self.fail(line, f"{value!a} holds half a character; write the character, not its escapes")
        return value

    def enter_key(self, mapping: dict[str, object], path: KeyPath, line: int | None) -> None:
        """Notes the line of the key at the end of `path`, and a key that was there before."""
        if self.checked(path[-1], line) in mapping:
            first = self.document.lines.get(path)
            lines = f" on line {line}" if first == line else f", on lines {first} and {line}"
            self.complain(path, line, path[-1], f"the key {path[-1]!r} is given twice{lines if line else ''}")
        elif line is not None:
            self.document.lines[path] = line

    def yaml(self, text: str, path: KeyPath) -> object:
        """The data of a YAML document; `path` is where it will stand."""
        from ruamel.yaml import YAML
        from ruamel.yaml.error import MarkedYAMLError
        from ruamel.yaml.reader import ReaderError

        parser = YAML(typ="safe", pure=True)
        parser.composer.warn_double_anchors = False
        try:
            # Nodes, not objects: nothing is constructed but what `node` below makes.
            node = parser.compose(text)
        except ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            self.fail(line, f"the character {chr(error.character)!r} is not allowed in YAML")
        except MarkedYAMLError as error:
            mark = error.problem_mark
            problem = str(error.problem).replace("'<stream end>'", "the end of the text")
            said = f"{error.context} {problem}"
            remedy = next((f"; {text}" for part, text in _REMEDIES if part in said), "")
            self.fail(mark.line + 1, f"not valid YAML at column {mark.column + 1}: {problem}{remedy}")
        except RecursionError:
            self.fail(None, _TOO_DEEP)
        except (ValueError, OverflowError):
            self.fail(None, r"not valid YAML: an escape such as \U names no character")
        return None if node is None else self.node(node, path)

    def node(self, node: Node, path: KeyPath) -> object:
        """The data of a YAML node."""
        from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

        line = node.start_mark.line + 1
        self.enter(path, line)
        self.check_tag(node, path)
        if isinstance(node, SequenceNode):
            return [self.node(item, (*path, index)) for index, item in enumerate(node.value)]
        if not isinstance(node, MappingNode):
            tag = str(node.tag)
            is_text = tag in _TEXT_TAGS or tag not in _PLAIN_TAGS
            return self.checked(node.value if is_text else _scalar(node.value), line)
        mapping: dict[str, object] = {}
        for key, item in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, ScalarNode):
                self.complain(path, line, None, "a key must be a text, not a list or a mapping")
                continue
            if key.tag == f"{_TAG}merge":
                self.complain(path, line, "<<", "'<<' merges nothing in YAML 1.2; write the keys out")
                continue
            inner = (*path, key.value)
            self.check_tag(key, inner)
            self.enter_key(mapping, inner, line)
            mapping.setdefault(key.value, self.node(item, inner))
        return mapping

    def check_tag(self, node: Node, path: KeyPath) -> None:
        tag = str(node.tag)
        if tag not in _PLAIN_TAGS:
            shown = f"!!{tag.removeprefix(_TAG)}" if tag.startswith(_TAG) else tag
            message = f"the tag {shown!r} is not allowed; write a text that starts with '!' in quotes"
            self.complain(path, node.start_mark.line + 1, shown, message)

    def json(self, text: str) -> object:
        """The data of a JSON document."""
        try:
            json.loads(text)
        except json.JSONDecodeError as error:
            self.fail(error.lineno, f"not valid JSON at column {error.colno}: {error.msg}")
        except RecursionError:
            self.fail(None, _TOO_DEEP)
        except ValueError as error:
            self.fail(None, f"not valid JSON: {error}")
        tokens = _json_tokens(text)
        return self.json_value(tokens, *next(tokens), ())

    def json_value(self, tokens: Iterator[tuple[str, int]], token: str, line: int, path: KeyPath) -> object:
        """The value that begins with `token`; the text is known to be valid."""
        self.enter(path, line)
        if token == "[":
            items: list[object] = []
            while (following := next(tokens))[0] != "]":
                if following[0] != ",":
                    items.append(self.json_value(tokens, *following, (*path, len(items))))
            return items
        if token != "{":
            return self.checked(json.loads(token), line)
        mapping: dict[str, object] = {}
        while (following := next(tokens))[0] != "}":
            if following[0] == ",":
                continue
            key = json.loads(following[0])
            self.enter_key(mapping, (*path, key), following[1])
            next(tokens)
            mapping.setdefault(key, self.json_value(tokens, *next(tokens), (*path, key)))
        return mapping

    def plain(self, value: object, path: KeyPath) -> object:
        """The data of a Python value; an object of an unknown type is left for the model to judge."""
        self.enter(path, None)
        if isinstance(value, Mapping):
            mapping: dict[str, object] = {}
            for key, item in value.items():
                inner = (*path, str(key) if isinstance(key, str | int | float) else f"<{described(key)}>")
                if not isinstance(key, str | int | float):
                    self.complain(inner, None, key, "a key must be a text")
                    continue
                self.enter_key(mapping, inner, None)
                mapping.setdefault(str(inner[-1]), self.plain(item, inner))
            return mapping
        if isinstance(value, list | tuple):
            return [self.plain(item, (*path, index)) for index, item in enumerate(value)]
        if isinstance(value, os.PathLike):
            return os.fsdecode(value)
        if isinstance(value, date):
            return value.isoformat()
        # Subclasses, such as NumPy's or ruamel's numbers, lose their type.
        if isinstance(value, str):
            return self.checked(str.__str__(value), None)
        if isinstance(value, float):
            return float.__float__(value)
        return int(value) if isinstance(value, numbers.Integral) and not isinstance(value, bool) else value


def _json_tokens(text: str) -> Iterator[tuple[str, int]]:
    """The tokens of a valid JSON text, each with its line."""
    line = 1
    for match in _JSON_TOKEN.finditer(text):
        if match[0] == "\n":
            line += 1
        else:
            yield match[0], line
