"""Versions of models: bundles, which are the truth, with their aliases in MLflow's registry."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from treadle.engine.bundle import versions
from treadle.engine.store import Store
from treadle.errors import RequestError, StorageError, did_you_mean, listed
from treadle.jobs.registry.connection import (
    Connection,
    Target,
    TrackingError,
    failures,
    is_missing,
    is_there_already,
    no_target,
    target_of,
    tracking_in,
)
from treadle.jobs.registry.recording import RUN, VERSION, find_run
from treadle.jobs.registry.sections import ALIAS, Tracking

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

BUNDLE = "bundle"
"""Folder of a run's artifacts on a server that its bundle is in."""
PAGE = 1000


def split_reference(model: str) -> tuple[str, int | None, str | None]:
    """Name, version and alias of `name`, `name:3` or `name@champion`; RequestError for anything else."""
    name, at, alias = model.partition("@")
    if at:
        if not name or ":" in name or not re.fullmatch(ALIAS, alias):
            raise RequestError(
                f"Model '{model}': it is a name, an @ and an alias, e.g. {name.partition(':')[0] or 'adult'}@champion."
            )
        return name, None, alias
    name, colon, version = model.partition(":")
    if not colon:
        return name, None, None
    if not (version.isascii() and version.isdigit()):
        raise RequestError(
            f"Model '{model}': the version after the colon is a whole number, e.g. {name}:3; an alias comes after an "
            f"@, e.g. {name}@champion."
        )
    return name, int(version), None


def manifest_of(store: Store, name: str, version: int) -> dict[str, Any]:
    """The manifest of the run that made a version; StorageError when it is gone."""
    run = store.read_json(f"models/{name}/{version}/bundle.json")["run"]
    manifest: dict[str, Any] = store.read_json(f"runs/{run}/manifest.json")
    return manifest


def connection_of(store: Store, name: str) -> Connection | None:
    """To where the newest version of a model is registered; None where that is nowhere."""
    tracking, existing = Tracking(), versions(store, name)
    if existing:
        with contextlib.suppress(StorageError):
            tracking = tracking_in(manifest_of(store, name, existing[-1]))
    target = target_of(tracking, name, store)
    return None if target is None else Connection(target)


def needed_connection(store: Store, name: str) -> Connection:
    """As `connection_of`; RequestError where there is none."""
    found = connection_of(store, name)
    if found is None:
        raise RequestError(f"There is no registry for '{name}': {no_target(store)}.")
    return found


def registered(client: MlflowClient, name: str) -> dict[int, ModelVersion]:
    """What MLflow has of a model, by the versions that its bundles have."""
    found: dict[int, ModelVersion] = {}
    token: str | None = None
    while True:
        page = client.search_model_versions(f"name = '{name}'", max_results=PAGE, page_token=token)
        for version in page:
            with contextlib.suppress(KeyError, ValueError):
                found[int(version.tags[VERSION])] = version
        token = page.token
        if not token:
            return found


def register(client: MlflowClient, target: Target, store: Store, reference: str) -> ModelVersion:
    """The version of MLflow's registry that is a bundle, made where there is none.

    MLflow numbers versions itself, in the order in which they come; the tag `treadle.version` is the bundle's.
    """
    name, _, number = reference.partition(":")
    there = registered(client, name)
    if int(number) in there:
        return there[int(number)]
    document = store.read_json(f"models/{name}/{number}/bundle.json")
    if not there:
        try:
            client.create_registered_model(name)
        except Exception as error:
            if not is_there_already(error):
                raise
    run = find_run(client, target, document["run"])
    run_id = run.info.run_id if run else None
    folder = f"models/{name}/{number}"
    if target.is_server:
        source = _uploaded(client, store, folder, run_id)
    else:
        source = store.path(folder) if "file" in store.fs.protocol else store.fs.unstrip_protocol(store.path(folder))
    tags = {
        VERSION: number,
        RUN: document["run"],
        "treadle.fingerprint": document["fingerprint"],
        "treadle.model": document["model"],
        "treadle.task": document["task"],
    }
    return client.create_model_version(name, source, run_id, tags=tags, await_creation_for=0)


def _uploaded(client: MlflowClient, store: Store, folder: str, run_id: str | None) -> str:
    """The address of a bundle's copy among the artifacts of its run."""
    if run_id is None:
        raise TrackingError(
            f"The run that made {folder} is not recorded in MLflow, so that its files have no place there. "
            "`treadle models --sync` records runs that are missing."
        )
    with tempfile.TemporaryDirectory(prefix="treadle-") as scratch:
        local = store.path(folder)
        if "file" not in store.fs.protocol:
            local = f"{scratch}/{BUNDLE}"
            os.mkdir(local)
            for file in store.list(folder):
                store.fs.get_file(store.path(f"{folder}/{file}"), f"{local}/{file}")
        client.log_artifacts(run_id, local, BUNDLE)
    return f"{client.get_run(run_id).info.artifact_uri}/{BUNDLE}"


def aliases_of(client: MlflowClient, name: str) -> dict[str, int]:
    """Alias -> version of the bundle; of those that MLflow has for versions that are bundles."""
    try:
        aliases: Mapping[str, Any] = client.get_registered_model(name).aliases
    except Exception as error:
        if is_missing(error):
            return {}
        raise
    ours = {str(version.version): number for number, version in registered(client, name).items()}
    return {alias: ours[str(version)] for alias, version in aliases.items() if str(version) in ours}


def aliased(store: Store, name: str, alias: str) -> int:
    """The version of a model that has an alias.

    Raises
    ------
    RequestError
        No version has it, or the model has no registry.
    TrackingError
        MLflow is not reached.
    """
    if not versions(store, name):
        from treadle.engine.bundle import load_bundle

        load_bundle(store, name)  # says that there is none, and which there are
    connection = needed_connection(store, name)
    database = connection.target.database
    there: dict[str, int] = {}
    if database is None or database.exists():
        with connection.using() as client:
            there = aliases_of(client, name)
    if alias not in there:
        said = listed(f"{one} (version {version})" for one, version in sorted(there.items()))
        raise RequestError(
            f"No version of '{name}' has the alias '{alias}' in {connection.target.uri}. Aliases: [{said}]."
            f"{did_you_mean(alias, there)} `treadle promote {name}:{versions(store, name)[-1]} {alias}` gives it."
        )
    return there[alias]


def list_models(store: Store, name: str | None = None) -> tuple[list[dict[str, Any]], list[str]]:
    """The newest version of every model, or all versions of one, the newest first; and what could not be found out.

    Each: model, version, aliases (version -> names of it; of a newest version those of all), metrics, run, created.

    Raises
    ------
    RequestError
        There is no such model.
    """
    names = [one for one in store.list("models") if versions(store, one)]
    if name is not None and name not in names:
        raise RequestError(
            f"There is no model '{name}' under {store.url}. Models: [{listed(names)}].{did_you_mean(name, names)}"
        )
    rows, warnings = [], []
    connections: dict[Target, Connection] = {}
    for one in [name] if name is not None else names:
        existing = versions(store, one)
        try:
            aliases = known_aliases(store, one, connections)
        except TrackingError as error:
            aliases = {}
            warnings.append(f"the aliases of '{one}' are not known: {error}")
        for version in existing[::-1] if name is not None else existing[-1:]:
            document = store.read_json(f"models/{one}/{version}/bundle.json")
            rows.append(
                {
                    "model": one,
                    "version": version,
                    "aliases": {
                        alias: number for alias, number in sorted(aliases.items()) if name is None or number == version
                    },
                    "trained_with": document["model"],
                    "task": document["task"],
                    "metrics": document["metrics"],
                    "run": document["run"],
                    "created": document["created"],
                }
            )
    return rows, warnings


def known_aliases(store: Store, name: str, connections: dict[Target, Connection]) -> dict[str, int]:
    """As `aliases_of`; none where there is no registry, or no database yet: looking makes none."""
    connection = connection_of(store, name)
    if connection is None:
        return {}
    database = connection.target.database
    if database is not None and not database.exists():
        return {}
    connection = connections.setdefault(connection.target, connection)
    with connection.using() as client:
        return aliases_of(client, name)


def set_alias(client: MlflowClient, target: Target, name: str, alias: str, version: ModelVersion) -> None:
    """Has an alias lead to a version, from whichever it led to."""
    with failures(target):
        client.set_registered_model_alias(name, alias, version.version)


def tag_version(client: MlflowClient, version: ModelVersion, tags: Mapping[str, str]) -> None:
    for key, value in tags.items():
        client.set_model_version_tag(version.name, version.version, key, value)
