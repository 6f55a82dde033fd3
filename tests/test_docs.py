"""README.md and docs/ say what the code does: specs, commands, links, names and limits in them are held against it."""

from __future__ import annotations

import ast
import fnmatch
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

import treadle
from treadle.cluster.profiles import AnyProfile, Local, Tls
from treadle.engine.card.measured import SMALL, TOP
from treadle.engine.digests import HASHED_WHOLE
from treadle.engine.encoders import MAX_LEVELS, DateParts, FeatureOperation, Selector
from treadle.engine.encoders.levels import INLINE
from treadle.engine.exact.logistic import LARGEST_HESSIAN
from treadle.engine.exact.params import EXACT
from treadle.engine.exchange import BUCKET_BYTES, LARGEST_BUCKET
from treadle.engine.expectations import AnyExpectation, OnRows
from treadle.engine.inputs import PARTITION_BYTES
from treadle.engine.job import (
    CLASSIFICATION_METRICS,
    MAX_CLASSES,
    MODEL_NAMES,
    NUMBERS_ARE_CLASSES_UP_TO,
    REGRESSION_METRICS,
    BadRows,
    Data,
    EarlyStopping,
    Job,
    Model,
    Split,
)
from treadle.engine.models.spaces import SPACES
from treadle.engine.recovery import ATTEMPTS
from treadle.engine.relational import TableOperation
from treadle.engine.relational.aggregate import Function
from treadle.engine.relational.cast import CastType
from treadle.engine.relational.window import Function as WindowFunction
from treadle.engine.rows import HELD_SHARE
from treadle.engine.scoring import ADDITIVITY_BOUND, BLOCK_BYTES
from treadle.engine.sections.about import About
from treadle.engine.sections.decision import Costs, Decision
from treadle.engine.sections.outputs import COSTS
from treadle.engine.segments import SEGMENT
from treadle.engine.sides import BROADCAST_BYTES
from treadle.engine.sql.functions import FUNCTIONS
from treadle.errors import RequestError
from treadle.jobs.cli import app
from treadle.jobs.lineage.provenance import READ_BYTES
from treadle.jobs.lineage.rows import MOST
from treadle.jobs.plan import WORKER_OWN
from treadle.jobs.service import dispatcher
from treadle.jobs.service.settings import Settings, load_settings
from treadle.jobs.spec import JobSpec
from treadle.kernels.sketch import DEFAULT_LIMIT

ROOT = Path(__file__).resolve().parent.parent
PAGES = {
    path.relative_to(ROOT).as_posix(): path for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
}


def literals(annotation: Any) -> set[str]:
    """The texts that a type allows, also in a union or a tuple."""
    found: set[str] = set()
    for argument in get_args(annotation):
        found |= {argument} if isinstance(argument, str) else literals(argument)
    return found


def tags(union: Any, key: str) -> set[str]:
    """The values of the discriminator of an annotated union of models."""
    models = get_args(get_args(union)[0])
    return set().union(*(literals(model.model_fields[key].annotation) for model in models))


TABLE_OPERATIONS, FEATURE_OPERATIONS = tags(TableOperation, "op"), tags(FeatureOperation, "op")
TABLES: TypeAdapter[Any] = TypeAdapter(tuple[TableOperation, ...])
FEATURES: TypeAdapter[Any] = TypeAdapter(tuple[FeatureOperation, ...])
CONTRACT: TypeAdapter[Any] = TypeAdapter(tuple[AnyExpectation, ...])
COMMAND = typer.main.get_command(app)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: what stands after its opening fence, the line of that, and the text."""

    language: str
    line: int
    text: str


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, in order; ValueError when one is not closed."""
    found: list[Block] = []
    opened: tuple[str, int] | None = None
    inside: list[str] = []
    for number, line in enumerate(page.splitlines(), 1):
        if not line.startswith("```"):
            inside.append(line)
        elif opened is None:
            opened, inside = (line[3:].strip(), number), []
        else:
            found.append(Block(*opened, "\n".join(inside)))
            opened = None
    if opened is not None:
        raise ValueError(f"the block that starts on line {opened[1]} is not closed")
    return found


def yaml_fault(text: str, folder: Path) -> str | None:
    """What is wrong with a YAML block: a spec, its `cluster`, a list of its operations, a service.yaml."""
    if text.startswith("# service.yaml"):
        (folder / "service.yaml").write_text(text, encoding="utf-8")
        try:
            load_settings(folder, {})
        except RequestError as error:
            return str(error)
        return None
    if text.startswith("cluster:"):
        text = f"apiVersion: treadle/v1\nname: a\ndata: {{path: x}}\n{text}"
    if text.startswith("apiVersion:"):
        from treadle.jobs.loading import load

        (folder / "spec.yaml").write_text(text, encoding="utf-8")
        try:
            load(folder / "spec.yaml", JobSpec)
        except RequestError as error:
            return str(error)
        return None
    try:
        fragment = YAML(typ="safe").load(text)
        is_contract = all("expect" in entry for entry in fragment)
        names = set() if is_contract else {operation["op"] for operation in fragment}
    except (YAMLError, TypeError, KeyError) as error:
        return f"neither a spec nor a list of operations: {error!r}"
    try:
        kind = CONTRACT if is_contract else TABLES if names <= TABLE_OPERATIONS else FEATURES
        kind.validate_python(tuple(fragment))
    except ValidationError as error:
        return str(error)
    return None


def resolved(words: list[str]) -> tuple[Any, list[str]]:
    """The command that the words begin with, however deep, and the words after it."""
    command = COMMAND
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]  # type: ignore[attr-defined]
    return command, words


def command_fault(line: str) -> str | None:
    """What the command line would say to a `treadle ...` command before it does anything."""
    command, words = resolved(shlex.split(line, comments=True)[1:])
    if hasattr(command, "commands"):
        return f"'{line}': no such command; there are {sorted(command.commands)}"
    try:
        command.make_context(command.name, words)
    except typer.exceptions.TyperException as error:
        return f"'{line}': {error}"
    return None


def mention_fault(span: str) -> str | None:
    """Whether a mention in a sentence, `treadle show RUN --json`, names a command and options that exist."""
    command, words = resolved(span.split()[1:])
    if words and not words[0].startswith("-") and hasattr(command, "commands"):
        return f"`{span}`: no such command; there are {sorted(command.commands)}"
    known = {option for one in (COMMAND, command) for parameter in one.params for option in parameter.opts} | {"--help"}
    unknown = [word for word in words if word.startswith("-") and word.partition("=")[0] not in known]
    return f"`{span}`: unknown options {unknown}" if unknown else None


def python_fault(text: str) -> str | None:
    """Whether a Python block parses and uses names that `treadle` has."""
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        return f"no Python: {error}"
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "treadle"
    }
    unknown = used - set(treadle.__all__)
    return f"treadle has no {sorted(unknown)}" if unknown else None


def block_faults(page: str, folder: Path) -> list[str]:
    """All that is wrong with the fenced blocks of a page, as 'line: what'."""
    found = []
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for block in blocks(page):
        faults: list[str | None] = []
        if block.language == "yaml":
            faults.append(yaml_fault(block.text, folder))
        elif block.language == "python":
            faults.append(python_fault(block.text))
        for line in block.text.splitlines():
            words = line.split()
            if words[:1] == ["treadle"] or words[:1] == [".venv/bin/treadle"]:
                faults.append(command_fault(line))
            if words[:1] == ["make"] and words[1] not in targets:
                faults.append(f"'make {words[1]}': no such target")
        found += [f"{block.line}: {fault}" for fault in faults if fault]
    return found


def prose(page: str) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL)


def anchors(page: str) -> set[str]:
    """The names of a page's headings, as links spell them."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}


def link_faults(page: str, folder: Path) -> list[str]:
    """Relative links of a page in `folder` that lead nowhere."""
    found = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        if path and not (folder / path).exists():
            found.append(f"{target}: no such file")
        elif anchor and anchor not in anchors((folder / path).read_text(encoding="utf-8") if path else page):
            found.append(f"{target}: no such heading")
    return found


@pytest.mark.parametrize("name", PAGES)
def test_fenced_blocks_hold(name: str, tmp_path: Path) -> None:
    faults = block_faults(PAGES[name].read_text(encoding="utf-8"), tmp_path)
    assert not faults, "\n".join(f"{name}:{fault}" for fault in faults)


@pytest.mark.parametrize("name", PAGES)
def test_commands_in_sentences_exist(name: str) -> None:
    spans = re.findall(r"`(treadle [^`]+)`", prose(PAGES[name].read_text(encoding="utf-8")))
    assert not [fault for span in spans if (fault := mention_fault(span))]


@pytest.mark.parametrize("name", PAGES)
def test_relative_links_lead_somewhere(name: str) -> None:
    assert not link_faults(PAGES[name].read_text(encoding="utf-8"), PAGES[name].parent)


def test_the_docs_have_something_to_check() -> None:
    found = [block for path in PAGES.values() for block in blocks(path.read_text(encoding="utf-8"))]
    assert sum(b.language == "yaml" and b.text.startswith("apiVersion:") for b in found) >= 2
    assert sum(b.language == "yaml" and b.text.startswith("- {op:") for b in found) >= 5
    assert sum("treadle predict" in b.text for b in found) >= 2


FENCE = "```"
PLANTED = [
    ("yaml", "apiVersion: treadle/v1\nname: a\ndata: {path: x, targt: y}", "Did you mean 'target'"),
    ("yaml", "apiVersion: treadle/v2\nname: a\ndata: {path: x}", "treadle/v1"),
    ("yaml", "cluster: {profile: ssh, host: [a]}", "Did you mean 'hosts'"),
    ("yaml", "- {op: filter, sql: 'max(a) > 0'}", "aggregate"),
    ("yaml", "- {op: one_hot, columns: text}", "columns"),
    ("yaml", "- {op: filter, sql: 'a > 0'}\n- {op: scale, columns: all}", "filter"),
    ("yaml", "- {expect: rows, min: 1, otherwise: quarantine}", "use warn or fail"),
    ("yaml", "split: {kind: random}", "neither a spec nor a list"),
    ("python", "treadle.runn('a')", "treadle has no ['runn']"),
    ("python", "run = = 1", "no Python"),
    ("yaml", "# service.yaml\nmax_runing: 3", "Did you mean 'max_running'"),
    ("", "treadle rum spec.yaml", "no such command"),
    ("", "treadle run spec.yaml --roots x", "--roots"),
    ("sh", "treadle predict --model a --input b", "output"),
    ("", "treadle run a.yaml b.yaml", "b.yaml"),
    ("", ".venv/bin/treadle bench fraud --model tiny", "--model"),
    ("", "treadle bench tiny", "no such command"),
    ("", "make tests", "no such target"),
]


@pytest.mark.parametrize(("language", "text", "fault"), PLANTED)
def test_a_planted_fault_is_found(language: str, text: str, fault: str, tmp_path: Path) -> None:
    faults = block_faults(f"Words.\n\n{FENCE}{language}\n{text}\n{FENCE}\n", tmp_path)
    assert len(faults) == 1
    assert faults[0].startswith("3: ")
    assert fault in faults[0]


def test_planted_faults_in_sentences_are_found(tmp_path: Path) -> None:
    assert "no such command" in (mention_fault("treadle rum") or "")
    assert "--josn" in (mention_fault("treadle show RUN --josn") or "")
    assert "--row" in (mention_fault("treadle bench fraud --row 1e3") or "")
    assert mention_fault("treadle bench fraud --rows 1e3") is None
    assert mention_fault("treadle show RUN --json") is None
    assert mention_fault("treadle --help") is None
    (tmp_path / "a.md").write_text("# One thing, `two`\n")
    page = "[x](a.md#one-thing-two) [y](https://example.org/z) [p](b.md) [q](a.md#two)"
    assert link_faults(page, tmp_path) == ["b.md: no such file", "a.md#two: no such heading"]
    with pytest.raises(ValueError, match="line 2 is not closed"):
        blocks(f"\n{FENCE}yaml\n")


def ignored(name: str) -> bool:
    """Whether .gitignore names a folder at the top, or it is hidden."""
    patterns = [line.strip("/\n") for line in (ROOT / ".gitignore").read_text().splitlines() if line.endswith("/")]
    return name.startswith(".") or any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def test_the_layout_in_the_readme_lists_the_folders() -> None:
    section = PAGES["README.md"].read_text(encoding="utf-8").partition("## Layout")[2]
    listed = re.findall(r"^([a-z]+)/ ", blocks(section)[0].text, re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in ROOT.iterdir() if path.is_dir() and not ignored(path.name))


SPEC = (ROOT / "docs" / "spec.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """The text of a section of the spec's page, its sub-sections included."""
    level, _, _ = title.partition(" ")
    rest = SPEC.partition(f"\n{title}\n")[2]
    return re.split(rf"^{level[0]}{{1,{len(level)}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def names(text: str) -> set[str]:
    """What stands in code or in bold: of `cluster: {profile: local}` every word."""
    marked = re.findall(r"`([^`\n]+)`|\*\*([^*\n]+)\*\*", prose(text))
    return {word for pair in marked for word in re.findall(r"\w+", " ".join(pair))}


DOCUMENTED: list[tuple[str, set[str]]] = [
    ("## contract", tags(AnyExpectation, "expect") | literals(OnRows.model_fields["otherwise"].annotation)),
    ("## tables", TABLE_OPERATIONS | literals(Function) | literals(WindowFunction) | literals(CastType)),
    ("## features", FEATURE_OPERATIONS | literals(Selector) | literals(DateParts.model_fields["parts"].annotation)),
    ("## split", tags(Split, "kind")),
    (
        "## models, metric, explain, predict",
        {*MODEL_NAMES, *CLASSIFICATION_METRICS, *REGRESSION_METRICS, *Model.model_fields, *EarlyStopping.model_fields},
    ),
    (
        "## decision",
        {*Decision.model_fields, *Costs.model_fields}.union(
            *(literals(field.annotation) for field in Decision.model_fields.values())
        ),
    ),
    ("## about", {*About.model_fields}),
    ("## data", {*Data.model_fields, *BadRows.model_fields}),
    (
        "## Where it runs",
        {
            *Local.model_fields,
            *re.findall(r"\w+", " ".join(tags(AnyProfile, "profile"))),
            "device",
            "artifacts",
            "seed",
        },
    ),
]


@pytest.mark.parametrize(("title", "wanted"), DOCUMENTED, ids=[title for title, _ in DOCUMENTED])
def test_the_spec_page_names_all_there_is(title: str, wanted: set[str]) -> None:
    assert wanted
    assert not wanted - names(section(title))


@pytest.mark.parametrize("profile", get_args(get_args(AnyProfile)[0]), ids=lambda profile: profile.__name__)
def test_the_page_of_clusters_shows_every_key_of_every_profile(profile: Any) -> None:
    (tag,) = literals(profile.model_fields["profile"].annotation)
    _, found, rest = PAGES["docs/clusters.md"].read_text(encoding="utf-8").partition(f"## {tag}\n")
    assert found
    wanted = {*profile.model_fields, *(Tls.model_fields if profile.__name__ == "Ssh" else ())}
    assert not wanted - set(re.findall(r"\w+", rest.partition("\n## ")[0]))


def parameters(union: Any, tag: str) -> Iterator[tuple[str, str]]:
    """Operation and key, as specs spell it."""
    for model in get_args(get_args(union)[0]):
        (op,) = literals(model.model_fields[tag].annotation)
        yield from ((op, field.alias or name) for name, field in model.model_fields.items() if name != tag)


@pytest.mark.parametrize(
    ("title", "union", "tag"),
    [
        ("## contract", AnyExpectation, "expect"),
        ("## tables", TableOperation, "op"),
        ("## features", FeatureOperation, "op"),
    ],
)
def test_every_key_of_every_operation_is_shown(title: str, union: Any, tag: str) -> None:
    text = section(title)
    missing = [(op, key) for op, key in parameters(union, tag) if not re.search(rf"\b{key}\b", text)]
    assert not missing


def test_every_section_of_a_spec_is_on_the_page() -> None:
    assert not {*JobSpec.model_fields, *Job.model_fields} - set(re.findall(r"\w+", SPEC))


def test_the_functions_of_expressions_are_those_there_are() -> None:
    lists = re.findall(r"^- \w+: (.+)$", section("### SQL expressions"), re.MULTILINE)
    listed = re.sub(r"\([^)]*\)", "", ", ".join(lists))
    assert sorted(re.findall(r"\w+", listed)) == sorted(FUNCTIONS)


@pytest.mark.parametrize("name", EXACT)
def test_params_of_exact_models_are_shown_with_their_defaults(name: str) -> None:
    (row,) = re.findall(rf"^\| `{name}` \| ([^|]*) \|$", section("## models, metric, explain, predict"), re.MULTILINE)
    for param, field in EXACT[name].model_fields.items():
        shown = re.search(rf"`{param}(?:: ([^`]+))?`", row)
        # The penalty is what C and the paragraph after the table are about.
        if param not in ("penalty", "l1_ratio") and (name, param) != ("qda", "shrinkage"):
            assert shown, param
            assert YAML(typ="safe", pure=True).load(shown[1]) == field.default, param


LIMITS = [
    ("lineage.md", f"Up to {READ_BYTES // 2**20} MiB of the inputs"),
    ("lineage.md", f"up to {MOST} rows are told"),
    ("lineage.md", f"(`{'`, `'.join(COSTS)}`) are measured"),
    ("card.md", f"groups of fewer than {SMALL},"),
    ("card.md", f"the first {TOP} features"),
    ("spec.md", f"at most {MAX_LEVELS} levels"),
    ("spec.md", f"at most {MAX_LEVELS} |"),
    ("artifacts.md", f"more than {INLINE}, and what they are worth"),
    ("how-it-works.md", f"levels of a column with more than {INLINE} are a Parquet file"),
    ("spec.md", f"At most {MAX_CLASSES} classes"),
    ("spec.md", f"at most {NUMBERS_ARE_CLASSES_UP_TO} values"),
    ("spec.md", f"Up to {DEFAULT_LIMIT:,} ids"),
    ("spec.md", f"at most {BROADCAST_BYTES // 2**30} GiB in memory"),
    ("spec.md", f"more than about {BUCKET_BYTES // 2**20} MiB they exchange rows"),
    ("how-it-works.md", f"A bucket of exchanged rows is about {BUCKET_BYTES // 2**20} MiB"),
    ("how-it-works.md", f"one of {LARGEST_BUCKET} times that"),
    ("spec.md", f"about {PARTITION_BYTES // 2**20} MiB of rows"),
    ("how-it-works.md", f"Files up to {HASHED_WHOLE // 2**20} MiB"),
    ("how-it-works.md", f"less than {HELD_SHARE:.0%}".replace("%", " %")),
    ("how-it-works.md", f"{WORKER_OWN // 2**20} MiB for the process"),
    ("how-it-works.md", f"{BLOCK_BYTES // 2**20} MiB of them in float64"),
    ("how-it-works.md", f"to {ADDITIVITY_BOUND:.0e}".replace("e-0", "e-")),
    ("how-it-works.md", f"Beyond {LARGEST_HESSIAN} coefficients"),
    ("how-it-works.md", f"a Hessian is at most {8 * LARGEST_HESSIAN**2 // 10**6} MB"),
    ("how-it-works.md", f"at most {['', 'one time', 'two times', 'three times', 'four times'][ATTEMPTS]} in all"),
    ("how-it-works.md", f"every {SEGMENT} rounds"),
    ("spec.md", f"segments of {SEGMENT} rounds"),
    ("spec.md", f"rounds: {EarlyStopping().rounds}, share: {EarlyStopping().share}"),
    (
        "service.md",
        f"killed after {dispatcher.STOP_SECONDS:g} seconds, {dispatcher.PUBLISH_SECONDS:g} while it publishes",
    ),
    ("service.md", f"up to {dispatcher.LONGEST_BACK_OFF / 60:g} minutes"),
]


@pytest.mark.parametrize(("page", "words"), LIMITS)
def test_limits_in_the_docs_are_those_of_the_code(page: str, words: str) -> None:
    assert words in PAGES[f"docs/{page}"].read_text(encoding="utf-8")


def test_the_page_of_the_service_has_every_setting_with_its_default() -> None:
    page = PAGES["docs/service.md"].read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[a-z_`, ]+`) \| ([^|]+) \|", page.partition("## Configuration")[2], re.MULTILINE)
    shown = {name: default.strip("`") for names, default in rows for name in re.findall(r"\w+", names)}
    assert Settings.model_fields.keys() <= shown.keys()
    for name, field in Settings.model_fields.items():
        if isinstance(field.default, (str, int, float)):
            assert shown[name] == str(field.default).replace("True", "true").replace("False", "false"), name
    metrics = re.findall(r'"(treadle_[a-z_]+)", "', Path(ROOT, "jobs/service/http/operations.py").read_text("utf-8"))
    assert metrics
    assert all(f"`{metric}" in page for metric in metrics)


def test_the_spaces_of_tuning_are_those_of_the_catalogue() -> None:
    rows = [
        line for line in PAGES["docs/comparing.md"].read_text(encoding="utf-8").splitlines() if line.startswith("| `")
    ]
    for name, space in SPACES.items():
        listed = [row for row in rows if f"`{name}`" in row.split("|")[1] and " to " in row]
        assert len(listed) == bool(space), name
        for parameter, values in space.items():
            wanted = " or ".join(map(str, values.choices or ())) or f"{values.low:g} to {values.high:g}"
            assert f"`{parameter}` {wanted}{' \\*' if values.log else ''}" in listed[0], parameter
