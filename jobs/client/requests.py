"""From what callers write to the documents that are sent: specs checked here, ids that make retries safe."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from treadle.errors import RequestError, did_you_mean
from treadle.jobs.client.answers import made
from treadle.jobs.client.target import Target
from treadle.jobs.service.states import State
from treadle.jobs.service.views import Schedule, Submission

if TYPE_CHECKING:
    from treadle.jobs.spec import JobSpec

type AnySpec = str | os.PathLike[str] | Mapping[str, Any] | JobSpec


def document_of(spec: AnySpec, target: Target, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """A checked spec as JSON, its paths absolute.

    Paths of inputs that are not found here are refused when the service is on this machine; else
    they are sent as they stand, for the service to find. An artifacts root that the spec names
    relative to the working folder is made absolute only for a service on this machine.

    Raises
    ------
    RequestError
        The spec has mistakes: all of them are named at once.
    """
    from treadle.jobs.spec import load_spec  # commands that send no spec do without its libraries

    loaded = load_spec(spec, overrides, elsewhere=not target.is_here)
    root = loaded.artifacts.root
    if target.is_here and root and "://" not in root:
        artifacts = loaded.artifacts.model_copy(update={"root": os.path.abspath(root)})
        loaded = loaded.model_copy(update={"artifacts": artifacts})
    return loaded.model_dump(mode="json", by_alias=True, exclude_unset=True)


def submission_of(
    spec: dict[str, Any],
    submission_id: str | None,
    priority: int,
    timeout: float | None,
    retries: int | None,
    after: Sequence[Any],
) -> Submission:
    """A submission. Without an id one is drawn, so that its retries cannot make a second job of it.

    `after` holds ids, or jobs, whose ids are meant.
    """
    return made(
        Submission,
        "submit",
        spec=spec,
        submission_id=submission_id or uuid.uuid4().hex,
        priority=priority,
        timeout=timeout,
        retries=retries,
        after=tuple(one if isinstance(one, str) else one.id for one in after),
    )


def schedule_of(name: str, cron: str, spec: dict[str, Any], **options: Any) -> Schedule:
    """A schedule; options that are None are those of the service."""
    given = {key: value for key, value in options.items() if value is not None}
    return made(Schedule, f"schedule '{name}'", name=name, cron=cron, spec=spec, **given)


def wanted_of(state: str | Sequence[str] | None, name: str | None, user: str | None) -> dict[str, Any]:
    """What jobs are asked for; RequestError for a state that there is not."""
    states = [state] if isinstance(state, str) else list(state or ())
    for one in states:
        if one not in (known := [str(each) for each in State]):
            raise RequestError(f"State '{one}' is not known. Allowed: [{', '.join(known)}].{did_you_mean(one, known)}")
    wanted = {"state": [str(one) for one in states], "name": name, "user": user}
    return {key: value for key, value in wanted.items() if value}
