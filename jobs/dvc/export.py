"""Writes a job as a stage of DVC's `dvc.yaml`, with pointer files of its inputs."""

from __future__ import annotations

import io
import os
import shlex
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from treadle.engine.store import storage_errors
from treadle.errors import RequestError
from treadle.jobs.dvc.inputs import Followed, follow
from treadle.jobs.dvc.metrics import IMPORTANCE, LEADERBOARD, METRICS
from treadle.jobs.dvc.pointers import Pointer, pointer_of
from treadle.jobs.spec import JobSpec, load_spec

FILE = "dvc.yaml"
MARK = "treadle dvc export"
"""What `meta.written_by` says of stages and pointers that may be written anew."""
RESULTS = "results"
"""Folder of the numbers, beside dvc.yaml."""


@dataclass(frozen=True)
class Exported:
    """What was written."""

    stage: str
    file: str
    pointers: tuple[str, ...]
    """Pointer files that were written."""
    kept: tuple[str, ...]
    """Those that said the same already."""
    ignored: tuple[str, ...]
    """`.gitignore` files that lines were added to."""
    notes: tuple[str, ...]

    def described(self) -> dict[str, Any]:
        """For --json."""
        return vars(self)


@dataclass(frozen=True)
class Layout:
    """Where things lie; all paths are absolute."""

    out: Path
    repository: Path
    spec: Path
    root: str

    def relative(self, path: str | Path) -> str:
        """As it is written in dvc.yaml: relative to it in the repository, else absolute; URLs as they are."""
        if "://" in str(path) or not self.holds(Path(path)):
            return str(path)
        return Path(os.path.relpath(path, self.out)).as_posix()

    def holds(self, path: Path) -> bool:
        return path == self.repository or self.repository in path.parents

    @property
    def local_root(self) -> Path | None:
        """The artifacts root, where it is in the repository; DVC takes no outputs elsewhere."""
        return Path(self.root) if "://" not in self.root and self.holds(Path(self.root)) else None


def export(
    spec_file: Path, out: Path, root: str | None = None, overrides: Sequence[str] = (), force: bool = False
) -> Exported:
    """Adds the job's stage to `dvc.yaml` in `out`, or writes it anew; and the pointers of its inputs.

    Stages and pointers that something else wrote stay, unless `force` says otherwise; nothing is written then.

    Raises
    ------
    RequestError
        The spec is wrong, or something else wrote what would be overwritten.
    """
    spec = load_spec(spec_file, overrides)
    out = out.absolute()
    layout = Layout(out, _repository(out), spec_file.absolute(), spec.root(root))
    outs = _outs(spec, layout)
    known = _read(out / FILE)
    stages = known.setdefault("stages", {})
    made = [*outs, *([] if layout.local_root is None else [layout.local_root]), *_made(stages, spec.name, out)]
    followed = follow(spec, layout.repository, made)
    pointers = {path: pointer_of(path) for path in followed.pointed}
    notes = list(followed.notes)
    if layout.local_root is None:
        notes.append(f"the artifacts root {layout.root} is outside of the repository: its tables are no outputs")
    kept = tuple(str(_beside(path)) for path, found in pointers.items() if _says(_beside(path), found))
    if not force:
        _check(stages, spec.name, out, [path for path in pointers if str(_beside(path)) not in kept])
    stages[spec.name] = _stage(spec, layout, followed, outs, overrides)
    for path, pointer in pointers.items():
        if str(_beside(path)) not in kept:
            _write(_beside(path), {"outs": [pointer.out(path.name)], "meta": {"written_by": MARK}})
    _write(out / FILE, known)
    own = [] if layout.local_root is None else [layout.local_root]
    ignored = [_ignore(path, layout.repository) for path in (*pointers, *own)]
    return Exported(
        stage=spec.name,
        file=str(out / FILE),
        pointers=tuple(str(_beside(path)) for path in pointers if str(_beside(path)) not in kept),
        kept=kept,
        ignored=tuple(dict.fromkeys(str(path) for path in ignored if path is not None)),
        notes=tuple(notes),
    )


def _repository(out: Path) -> Path:
    """The nearest folder around that is a DVC or Git repository; else the folder itself."""
    for folder in (out, *out.parents):
        if (folder / ".dvc").is_dir() or (folder / ".git").exists():
            return folder
    return out


def _outs(spec: JobSpec, layout: Layout) -> list[Path]:
    """Folders of the artifacts root that hold what this job publishes, and nothing of other jobs."""
    if layout.local_root is None:
        return []
    return [layout.local_root / kind / spec.name for kind in ("tables", "models") if kind == "tables" or spec.models]


def _stage(
    spec: JobSpec, layout: Layout, followed: Followed, outs: Sequence[Path], overrides: Sequence[str]
) -> dict[str, Any]:
    """The stage. Whatever the spec says is a parameter: a change of any key is noticed, also of one that is new.

    Outputs stay where they are before a run: it adds versions to the tables. DVC keeps no copy of them, for they keep
    their own.
    """
    name, root = layout.relative(layout.spec), layout.relative(layout.root)
    results = f"{RESULTS}/{spec.name}"
    sets = [word for override in overrides for word in ("--set", override)]
    commands = [
        ["treadle", "run", name, "--root", root, *sets, "--quiet"],
        ["treadle", "dvc", "metrics", spec.name, "--root", root, "--out", results],
    ]
    stage: dict[str, Any] = {"cmd": [_plain(shlex.join(command)) for command in commands]}
    if followed.dependencies:
        stage["deps"] = [_plain(layout.relative(path)) for path in followed.dependencies]
    stage["params"] = [{_plain(name): None}]
    if outs:
        stage["outs"] = [{_plain(layout.relative(path)): {"cache": False, "persist": True}} for path in outs]
    stage["metrics"] = [{f"{results}/{METRICS}": {"cache": False}}]
    if spec.models:
        stage["plots"] = [
            {f"{results}/{LEADERBOARD}": {
                "cache": False, "template": "bar_horizontal", "x": "value", "y": "model"}},
            {f"{results}/{IMPORTANCE}": {
                "cache": False, "template": "bar_horizontal", "x": "contribution", "y": "feature"}},
        ]  # fmt: skip
    meta: dict[str, Any] = {"written_by": MARK}
    if followed.notes:
        meta["notes"] = [_plain(note) for note in followed.notes]
    return {**stage, "meta": meta}


def _plain(text: str) -> str:
    """A text in which DVC finds nothing to fill in."""
    return text.replace("${", "\\${")


def _made(stages: Mapping[str, Any], name: str, out: Path) -> list[Path]:
    """What the other stages of dvc.yaml make."""
    found = []
    for title, stage in stages.items():
        for entry in (stage.get("outs") or []) if title != name and isinstance(stage, Mapping) else []:
            path = next(iter(entry)) if isinstance(entry, Mapping) else entry
            found.append(Path(os.path.normpath(out / stage.get("wdir", ".") / str(path))))
    return found


def _beside(path: Path) -> Path:
    """The pointer file of an input."""
    return path.with_name(f"{path.name}.dvc")


def _says(file: Path, pointer: Pointer) -> bool:
    """Whether a pointer file has the same content already, whoever wrote it."""
    outs = _read(file).get("outs") if file.exists() else None
    return isinstance(outs, list) and len(outs) == 1 and outs[0].get("md5") == pointer.md5


def _check(stages: Mapping[str, Any], name: str, out: Path, paths: Sequence[Path]) -> None:
    """Refuses to write over what something else wrote."""
    others = [f"stage '{name}' of {out / FILE}"] if name in stages and not _is_ours(stages[name]) else []
    others += [str(file) for file in map(_beside, paths) if file.exists() and not _is_ours(_read(file))]
    if others:
        raise RequestError(
            f"{' and '.join(others)}: not written by `{MARK}`, so nothing was changed. Give --force to write it anew, "
            "or for a pointer run `dvc commit`, and export again."
        )


def _is_ours(found: Any) -> bool:
    meta = found.get("meta") if isinstance(found, Mapping) else None
    return isinstance(meta, Mapping) and meta.get("written_by") == MARK


def _read(path: Path) -> MutableMapping[str, Any]:
    """A file of DVC, with its comments; empty when there is none."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    if not path.exists():
        return {}
    try:
        with storage_errors(str(path)):
            found = YAML(typ="rt").load(path.read_text(encoding="utf-8")) or {}
    except (YAMLError, UnicodeDecodeError) as error:
        raise RequestError(f"{path} cannot be read as YAML: {str(error).splitlines()[0]}. Mend or move it.") from None
    if not isinstance(found, MutableMapping) or not isinstance(found.get("stages", {}), MutableMapping):
        raise RequestError(f"{path} is no file of DVC: it has no stages or outs. Mend or move it.")
    return found


def _write(path: Path, document: Mapping[str, Any]) -> None:
    from ruamel.yaml import YAML

    yaml = YAML(typ="rt")
    yaml.width = 100_000
    text = io.StringIO()
    yaml.dump(document, text)
    with storage_errors(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.getvalue(), encoding="utf-8")


def _ignore(path: Path, repository: Path) -> Path | None:
    """Keeps data out of Git, as `dvc add` does; the file that got a line."""
    if not (repository / ".git").exists():
        return None
    file, line = path.parent / ".gitignore", f"/{path.name}"
    with storage_errors(str(file)):
        before = file.read_text(encoding="utf-8") if file.exists() else ""
        if line in before.splitlines():
            return None
        file.write_text(
            f"{before}{'' if before.endswith(chr(10)) or not before else chr(10)}{line}\n", encoding="utf-8"
        )
    return file
