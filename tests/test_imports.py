"""Who may import whom: the rules of the folders, checked in every source file without importing it."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("engine", "kernels", "jobs", "cluster", "benchmarks")
CHECKED = (*FOLDERS, "treadle", "tests")

# The folders that a folder's modules may import besides their own; benchmarks may import anything.
ALLOWED = {"jobs": {"engine", "cluster"}, "engine": {"kernels"}, "kernels": set(), "cluster": set()}
# What every folder may import from treadle/ itself.
COMMON = {"errors", "signals", "versions", "__version__"}

STAGE_MODULES = {
    "read",
    "duplicates",
    "contract",
    "etl",
    "split",
    "features",
    "train",
    "folds",
    "race",
    "compare",
    "tune",
    "ensemble",
    "evaluate",
    "explain",
    "predict",
    "publish",
}

GPU_LIBRARIES = {"cudf", "cupy", "cuml", "rmm", "dask_cudf", "dask_cuda", "pynvml"}

HEAVY_LIBRARIES = {
    "dask",
    "deltalake",
    "distributed",
    "mlflow",
    "numba",
    "numpy",
    "optuna",
    "pandas",
    "pyarrow",
    "sklearn",
    "sqlglot",
    "xgboost",
}

IMPORT_FUNCTIONS = {"import_module", "__import__", "importorskip", "find_spec"}


def module_name(path: PurePosixPath) -> str:
    """The import name of a file of the repository: engine/read.py -> treadle.engine.read."""
    parts = list(path.with_suffix("").parts)
    if parts[-1] == "__init__":
        parts.pop()
    return ".".join(["treadle", *parts] if parts[0] in FOLDERS else parts)


def called_name(call: ast.Call) -> str:
    """'import_module' for import_module(...) and importlib.import_module(...)."""
    function = call.func
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def imported_names(path: PurePosixPath, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of all that is imported, wherever it stands in the file.

    `from a import b` gives a.b, since b may be a module. The strings given to functions that
    import by name count; a relative one is taken to be relative to the file's own package.
    """
    module = module_name(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]

    def absolute(level: int, name: str) -> str:
        if level == 0:
            return name
        base = package.split(".")[: len(package.split(".")) - level + 1]
        return ".".join([*base, name] if name else base)

    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = absolute(node.level, node.module or "")
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and called_name(node) in IMPORT_FUNCTIONS:
            arguments = [*node.args[:1], *(k.value for k in node.keywords if k.arg in {"name", "modname"})]
            for argument in arguments:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    name = argument.value.lstrip(".")
                    yield node.lineno, absolute(len(argument.value) - len(name), name)


def stage_of(module: str) -> str | None:
    """'train' for treadle.engine.train and for every module below it; None for other modules."""
    match module.split("."):
        case ["treadle", "engine", stage, *_] if stage in STAGE_MODULES:
            return stage
    return None


def folder_fault(folder: str, name: str) -> str | None:
    """What is wrong when a module of `folder` imports `name`, by the rules between folders."""
    match name.split("."):
        case ["treadle"]:
            return "imports the whole of treadle; name the module"
        case ["treadle", "benchmarks", *_]:
            return None  # bench_fault tells
        case ["treadle", first, *_] if first in FOLDERS and first != folder and first not in ALLOWED[folder]:
            return f"{folder} must not import treadle.{first}"
        case ["treadle", first, *_] if first not in {*FOLDERS, *COMMON}:
            return f"{folder} must not import treadle.{first} of the import root"
    return None


def bench_fault(folder: str, module: str, name: str) -> str | None:
    """What is wrong when a module imports `name`, by the rule that nothing depends on benchmarks."""
    if f"{name}.".startswith("treadle.benchmarks.") and folder not in {"benchmarks", "tests"}:
        return None if module == "treadle.jobs.commands.bench" else "only jobs/commands/bench.py imports benchmarks"
    return None


def stage_fault(module: str, name: str) -> str | None:
    """What is wrong when a module of engine/ imports `name`, by the rule between stages."""
    stage = stage_of(name)
    if stage is None or stage == stage_of(module) or module == "treadle.engine.pipeline":
        return None
    return f"only engine/pipeline.py imports the stage {stage}"


def faults(path: PurePosixPath, source: str) -> list[str]:
    """Every broken rule in one file of the repository, as 'path:line: what'."""
    module, folder = module_name(path), path.parts[0]
    gpu_allowed = folder in {"kernels", "cluster", "tests", "benchmarks"} or module == "treadle.engine.backend"
    found = []
    for line, name in imported_names(path, ast.parse(source)):
        top = name.split(".")[0]
        if top in FOLDERS:
            found.append((line, f"imports bare '{top}'; import treadle.{top}"))
        if top in GPU_LIBRARIES and not gpu_allowed:
            found.append((line, f"{top} belongs in engine/backend.py, kernels/ or cluster/"))
        if folder in ALLOWED and (fault := folder_fault(folder, name)):
            found.append((line, fault))
        if fault := bench_fault(folder, module, name):
            found.append((line, fault))
        if folder == "engine" and (fault := stage_fault(module, name)):
            found.append((line, fault))
    return [f"{path}:{line}: {what}" for line, what in found]


def source_files() -> list[PurePosixPath]:
    """Every Python file of the repository once: not a second time through treadle's symlinks."""
    return sorted(
        PurePosixPath(folder).relative_to(ROOT.as_posix()) / name
        for top in CHECKED
        for folder, _, names in os.walk(ROOT / top)  # os.walk does not follow symlinks
        for name in names
        if name.endswith(".py")
    )


def test_every_file_keeps_the_rules() -> None:
    files = source_files()
    assert {path.parts[0] for path in files} >= {*FOLDERS, "treadle", "tests"}
    broken = [fault for path in files for fault in faults(path, (ROOT / path).read_text(encoding="utf-8"))]
    assert not broken, "\n" + "\n".join(broken)


PLANTED = [
    # (a) bare names, in every folder and by every way to import
    ("jobs/cli.py", "import engine", "imports bare 'engine'"),
    ("tests/engine/test_x.py", "import kernels.forest as forest", "imports bare 'kernels'"),
    ("benchmarks/x.py", "from cluster.profiles import Profile", "imports bare 'cluster'"),
    ("treadle/__init__.py", "def run():\n    from jobs import runner", "imports bare 'jobs'"),
    ("jobs/x.py", "import importlib\nimportlib.import_module('engine.read')", "imports bare 'engine'"),
    (
        "jobs/x.py",
        "from importlib import import_module as m, import_module\nimport_module(name='jobs')",
        "bare 'jobs'",
    ),
    ("tests/x.py", "__import__('kernels')", "imports bare 'kernels'"),
    ("tests/x.py", "pytest.importorskip('kernels.forest')", "imports bare 'kernels'"),
    ("benchmarks/x.py", "from benchmarks import timing", "imports bare 'benchmarks'"),
    # (b) between folders
    ("jobs/plan.py", "from treadle.kernels.forest import Forest", "jobs must not import treadle.kernels"),
    ("engine/train.py", "import treadle.jobs.spec", "engine must not import treadle.jobs"),
    ("engine/train.py", "from treadle import cluster", "engine must not import treadle.cluster"),
    ("engine/train.py", "from ..jobs import spec", "engine must not import treadle.jobs"),
    ("engine/train/xgb.py", "from ...jobs.spec import JobSpec", "engine must not import treadle.jobs"),
    ("engine/train/__init__.py", "from ... import jobs", "engine must not import treadle.jobs"),
    ("engine/x.py", "def f():\n    from treadle.jobs import spec", "engine must not import treadle.jobs"),
    (
        "engine/x.py",
        "if TYPE_CHECKING:\n    from treadle.jobs import spec",
        "engine must not import treadle.jobs",
    ),
    (
        "engine/x.py",
        "importlib.import_module('..jobs.spec', __package__)",
        "engine must not import treadle.jobs",
    ),
    ("kernels/x.py", "from treadle.engine import backend", "kernels must not import treadle.engine"),
    ("kernels/x.py", "from ..cluster import probe", "kernels must not import treadle.cluster"),
    ("cluster/x.py", "import treadle.engine.backend", "cluster must not import treadle.engine"),
    ("cluster/x.py", "from treadle.kernels import hashing", "cluster must not import treadle.kernels"),
    ("engine/x.py", "import treadle", "imports the whole of treadle"),
    ("engine/x.py", "from treadle import run", "must not import treadle.run of the import root"),
    ("jobs/x.py", "from treadle.__main__ import main", "must not import treadle.__main__ of the import root"),
    (
        "jobs/runner.py",
        "from treadle.benchmarks import timing",
        "only jobs/commands/bench.py imports benchmarks",
    ),
    (
        "jobs/plan.py",
        "from ..benchmarks.timing import clocked",
        "only jobs/commands/bench.py imports benchmarks",
    ),
    ("engine/x.py", "from treadle import benchmarks", "only jobs/commands/bench.py imports benchmarks"),
    ("kernels/x.py", "import treadle.benchmarks", "only jobs/commands/bench.py imports benchmarks"),
    ("treadle/__init__.py", "from . import benchmarks", "only jobs/commands/bench.py imports benchmarks"),
    # (c) between stages
    ("engine/train.py", "from treadle.engine.read import frame", "imports the stage read"),
    ("engine/train.py", "from treadle.engine import split", "imports the stage split"),
    ("engine/train.py", "from . import evaluate", "imports the stage evaluate"),
    ("engine/train/xgb.py", "from ..features import fit", "imports the stage features"),
    ("engine/artifacts.py", "from treadle.engine.publish import commit", "imports the stage publish"),
    # (d) GPU libraries
    ("engine/train.py", "import cudf", "cudf belongs in"),
    ("engine/train.py", "def f():\n    from cuml.linear_model import Ridge", "cuml belongs in"),
    ("jobs/doctor.py", "import pynvml", "pynvml belongs in"),
    ("treadle/__init__.py", "import rmm.mr", "rmm belongs in"),
    ("engine/read/backend.py", "import cupy", "cupy belongs in"),
    ("jobs/x.py", "importlib.util.find_spec('dask_cuda')", "dask_cuda belongs in"),
]

LAWFUL = [
    ("jobs/runner.py", "from treadle.engine import pipeline\nfrom treadle.cluster.launch import start"),
    ("jobs/spec.py", "from treadle.errors import RequestError\nfrom . import plan\nfrom .sub.part import x"),
    (
        "engine/train.py",
        "import treadle.kernels.forest as forest\nfrom treadle import errors\nimport xgboost",
    ),
    (
        "engine/train/xgb.py",
        "from .base import Model\nfrom treadle.engine.train import base\nfrom ..job import Stage",
    ),
    ("engine/pipeline.py", "from treadle.engine import etl, read, train\nfrom .publish import commit"),
    ("engine/backend.py", "import cudf\nimport dask_cudf"),
    ("kernels/forest.py", "import cupy\nfrom . import hashing"),
    ("cluster/probe.py", "import pynvml\nimport dask_cuda"),
    ("treadle/__init__.py", "def run(spec):\n    from treadle.jobs import runner\n    from . import engine"),
    ("treadle/__main__.py", "from treadle.jobs.cli import app"),
    ("tests/jobs/test_x.py", "import cudf\nfrom treadle.kernels import forest\nimport treadle.engine.read"),
    (
        "benchmarks/x.py",
        "from treadle.engine import read\nfrom treadle.kernels import forest\nimport engineering",
    ),
    ("benchmarks/x.py", "import treadle\nfrom treadle.jobs import plan\nfrom treadle.benchmarks.timing import clocked"),
    ("jobs/commands/bench.py", "def bench():\n    from treadle.benchmarks import fraud"),
    ("tests/benchmarks/test_x.py", "from treadle.benchmarks import timing"),
]


@pytest.mark.parametrize(("path", "source", "fault"), PLANTED)
def test_a_planted_fault_is_found(path: str, source: str, fault: str) -> None:
    found = faults(PurePosixPath(path), source)
    assert len(found) == 1
    assert fault in found[0]
    assert found[0].startswith(f"{path}:{len(source.splitlines())}: ")


@pytest.mark.parametrize(("path", "source"), LAWFUL)
def test_lawful_imports_pass(path: str, source: str) -> None:
    assert faults(PurePosixPath(path), source) == []


def test_the_stages_that_the_rule_names_exist() -> None:
    present = {path.stem for path in (ROOT / "engine").glob("*.py")} | {
        path.parent.name for path in (ROOT / "engine").glob("*/__init__.py")
    }
    assert present >= STAGE_MODULES


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_import_root_holds_relative_symlinks(folder: str) -> None:
    link = ROOT / "treadle" / folder
    assert link.is_symlink()
    assert os.readlink(link) == f"../{folder}"
    assert (link / "__init__.py").is_file()


def modules_after(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after running `code`."""
    reporting = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", reporting], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return {name.split(".")[0] for name in json.loads(done.stderr.splitlines()[-1])}


HELP = """
import sys
sys.argv = ["treadle", "--help"]
from treadle.__main__ import main
try:
    main()
except SystemExit as stop:
    assert not stop.code
"""


@pytest.mark.parametrize("code", [HELP, "import treadle"], ids=["treadle --help", "import treadle"])
def test_heavy_libraries_are_imported_only_where_they_are_used(code: str) -> None:
    loaded = modules_after(code)
    assert "treadle" in loaded
    assert not loaded & (HEAVY_LIBRARIES | GPU_LIBRARIES)
