"""A real service answers as its OpenAPI document says, whatever it is asked."""

from __future__ import annotations

import contextlib

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from tests.jobs.service.served import Served, small_spec

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
]
EXAMPLES = 6
PHASES = (Phase.explicit, Phase.generate)


@pytest.fixture(scope="module")
def done(attached: Served) -> str:
    """A job that has everything that can be asked for."""
    job = attached.submit(small_spec("done"))
    assert attached.wait(job)["state"] == "succeeded"
    return job


@pytest.fixture(scope="module")
def document(attached: Served) -> BaseSchema:
    return schemathesis.openapi.from_url(f"{attached.url}/v1/openapi.json")


def test_answers_are_those_of_the_document(document: BaseSchema, done: str) -> None:
    """Of every route: requests that fit the document, and those that do not; of a job that is there, too."""
    asked = 0
    for found in document.get_all_operations():
        for mode in GenerationMode:
            ask(found.ok(), mode, done)
            asked += 1
    assert asked >= 40


def ask(operation: schemathesis.APIOperation, mode: GenerationMode, done: str) -> None:
    with contextlib.suppress(Unsatisfiable):  # a route without parameters cannot be asked wrongly

        @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), phases=PHASES)
        @given(case=operation.as_strategy(generation_mode=mode))
        def answered(case: schemathesis.Case) -> None:
            note(f"{operation.label} {mode}")
            if "job" in (case.path_parameters or {}):
                case.call_and_validate(checks=CHECKS, timeout=60)
                case.path_parameters["job"] = done
            case.call_and_validate(checks=CHECKS, timeout=60)

        answered()
