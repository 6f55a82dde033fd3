"""The app of a service."""

from __future__ import annotations

from fastapi import FastAPI

from treadle.jobs.service import page
from treadle.jobs.service.http import jobs, operations, problems, results, streams
from treadle.jobs.service.http.guards import Guards
from treadle.jobs.service.service import Service
from treadle.jobs.service.views import Problem
from treadle.versions import version_of


def app_of(service: Service) -> FastAPI:
    """Everything that a service answers."""
    app = FastAPI(
        title="Treadle",
        version=version_of("treadle"),
        openapi_url="/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    for module in (jobs, streams, results, operations):
        app.include_router(module.router)
    app.include_router(page.router())
    problems.install(app)
    app.add_middleware(Guards, settings=service.settings)
    _name_problems(app)
    return app


def _name_problems(app: FastAPI) -> None:
    """Has the OpenAPI document define what all errors look like."""
    made = app.openapi

    def openapi() -> dict[str, object]:
        document = made()
        schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        document["components"]["schemas"]["Problem"] = schema
        return document

    app.openapi = openapi  # type: ignore[method-assign]
