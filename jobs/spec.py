"""The job spec: what is asked of the engine, and where it runs and writes.

See docs/spec.md for the format with examples; `treadle schema` prints its JSON Schema.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from treadle.cluster.profiles import AnyProfile, Local
from treadle.engine.job import IMPORT_PATH, MODEL_NAMES, Job
from treadle.engine.job import Artifacts as Kept
from treadle.errors import RequestError
from treadle.jobs import loading
from treadle.jobs.registry.sections import Promotion, Tracking


class Artifacts(Kept):
    """Where everything is written, and what is kept."""

    root: str | None = None
    """Folder or fsspec URL; else the variable TREADLE_ROOT, else `artifacts`."""


class JobSpec(Job):
    """A whole spec: a `Job`, and where it runs."""

    apiVersion: Literal["treadle/v1"]
    device: Literal["auto", "cpu", "cuda"] = "auto"
    artifacts: Artifacts = Artifacts()
    cluster: AnyProfile = Local()
    tracking: Tracking = Tracking()
    """Where runs are recorded."""
    promotion: Promotion = Promotion()
    """What a version of the model must meet to be promoted."""

    @property
    def job(self) -> Job:
        """What the engine is asked to do."""
        return Job.model_construct(**{name: getattr(self, name) for name in Job.model_fields})

    def root(self, override: str | None = None) -> str:
        """The artifacts root: the override, else the spec's, else TREADLE_ROOT, else `artifacts`."""
        return root_of(override or self.artifacts.root)


def root_of(given: str | None) -> str:
    """An absolute path or URL of the artifacts root; RequestError when it is a file."""
    root = given or os.environ.get("TREADLE_ROOT") or "artifacts"
    if "://" in root:
        return root
    if os.path.isfile(root):
        raise RequestError(f"{os.path.abspath(root)} is a file; name a folder to write into.")
    return os.path.abspath(root)


def load_spec(
    source: str | os.PathLike[str] | Mapping[str, Any] | JobSpec,
    overrides: Sequence[str] = (),
    *,
    elsewhere: bool = False,
) -> JobSpec:
    """A checked spec from a YAML or JSON file, a dict, or a JobSpec; input paths become absolute.

    `elsewhere`: it is for another machine, where other files may be: paths of which nothing is here stay as they are.

    Raises
    ------
    RequestError
        The file is missing, or the spec has mistakes: all of them are named at once.
    """
    if isinstance(source, JobSpec):
        if overrides:
            document = source.model_dump(mode="json", by_alias=True, exclude_unset=True)
            return load_spec(document, overrides, elsewhere=elsewhere)
        return _resolved(source, None, elsewhere)
    spec = loading.load(source, JobSpec, overrides)
    folder = None if isinstance(source, Mapping) else Path(source).resolve().parent
    return _resolved(spec, folder, elsewhere)


def _resolved(spec: JobSpec, folder: Path | None, elsewhere: bool) -> JobSpec:
    """Paths relative to the spec's file when they exist there, else to the working folder."""

    def absolute(path: str) -> str:
        if not path:
            raise RequestError("The input's path is empty; name a file, folder, glob or URL.")
        if "://" in path or os.path.isabs(path):
            return path
        for base in (folder, Path.cwd()):
            if base is not None and _exists(base / path):
                return str(base / path)
        if elsewhere:
            return path
        where = f"{folder} and {Path.cwd()}" if folder and folder != Path.cwd() else str(Path.cwd())
        if _is_glob(path):
            raise RequestError(f"Nothing matches the glob '{path}'; looked in {where}.")
        raise RequestError(f"Input '{path}' was not found; looked in {where}.{_near(folder or Path.cwd(), path)}")

    def resolve(path: str | tuple[str, ...]) -> str | tuple[str, ...]:
        return absolute(path) if isinstance(path, str) else tuple(absolute(p) for p in path)

    data = spec.data.model_copy(update={"path": resolve(spec.data.path)})
    tables = tuple(
        operation.model_copy(
            update={"with_": operation.with_.model_copy(update={"path": resolve(operation.with_.path)})}
        )
        if operation.op in ("join", "union")
        else operation
        for operation in spec.tables
    )
    contract = tuple(
        expectation.model_copy(
            update={"in_": expectation.in_.model_copy(update={"path": resolve(expectation.in_.path)})}
        )
        if expectation.expect == "known"
        else expectation
        for expectation in spec.contract
    )
    split = spec.split
    if split is not None and split.kind == "path":
        split = split.model_copy(update={"path": resolve(split.path)})
    return spec.model_copy(update={"data": data, "contract": contract, "tables": tables, "split": split})


def _exists(path: Path) -> bool:
    """Whether a path, or anything that a glob matches, is there."""
    try:
        if _is_glob(str(path)):
            import glob

            return next(glob.iglob(str(path), recursive=True), None) is not None
        return path.exists()
    except (OSError, ValueError):
        return False  # a name that no file can have


def _is_glob(path: str) -> bool:
    return any(c in path for c in "*?[")


def _near(folder: Path, path: str) -> str:
    from treadle.errors import did_you_mean

    try:
        return did_you_mean(Path(path).name, os.listdir((folder / path).parent))
    except (OSError, ValueError):
        return ""  # no folder, none that may be looked at, or a name that none can have


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a spec, for editors."""
    schema = JobSpec.model_json_schema(by_alias=True)
    name = schema["$defs"]["Model"]["properties"]["name"]
    model = schema["$defs"]["Model"]
    estimator = {"type": "string", "pattern": IMPORT_PATH, "description": "package.module:Class"}
    own = {**model["properties"], "name": dict(name), "estimator": estimator}
    schema["$defs"]["OwnModel"] = {**model, "title": "OwnModel", "properties": own, "required": ["name", "estimator"]}
    name["enum"] = list(MODEL_NAMES)
    del model["properties"]["estimator"]
    (of_list,) = [one for one in schema["properties"]["models"]["anyOf"] if one.get("type") == "array"]
    of_list["items"] = {"anyOf": [name, {"$ref": "#/$defs/Model"}, {"$ref": "#/$defs/OwnModel"}]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
