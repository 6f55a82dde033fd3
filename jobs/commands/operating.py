"""Commands of whoever runs a service: up, down, tokens, certs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from treadle.jobs.commands.options import Debug, Json, messages

Port = Annotated[int | None, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any. Else 8844.")]
Home = Annotated[
    str | None, typer.Option("--home", help="Folder of the service's state; else TREADLE_HOME, else ~/.treadle.")
]
Database = Annotated[
    str | None, typer.Option(help="postgresql://... or sqlite:///...; else a file in the home.", show_default=False)
]

tokens = typer.Typer(no_args_is_help=True, help="Tokens of a service; only their digests are kept.")


def up(
    port: Port = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; off loopback tokens and TLS are needed.")
    ] = None,
    max_running: Annotated[int | None, typer.Option(min=1, help="Jobs that run at once; else 2.")] = None,
    allow_root: Annotated[
        list[str] | None,
        typer.Option(help="Folder or URL that jobs may read from and write to; else the working folder. Repeatable."),
    ] = None,
    allow_code: Annotated[
        list[str] | None,
        typer.Option(help="Module whose estimators specs may name as models. Repeatable.", show_default=False),
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a running Dask scheduler; else one is started.", show_default=False)
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Local worker processes.")] = None,
    root: Annotated[str | None, typer.Option(help="Artifacts root of jobs whose spec has none.")] = None,
    database: Annotated[
        str | None,
        typer.Option(
            help="postgresql://... or sqlite:///...; else TREADLE_DATABASE, else a file in the home.",
            show_default=False,
        ),
    ] = None,
    certificate: Annotated[str | None, typer.Option(help="PEM file to serve HTTPS with.", show_default=False)] = None,
    key: Annotated[str | None, typer.Option(help="Its private key.", show_default=False)] = None,
    home: Home = None,
    debug: Debug = False,
) -> None:
    """Start the job service and a cluster beside it, and stay; Ctrl-C ends both."""
    with messages(debug):
        from treadle.jobs.service.serve import serve
        from treadle.jobs.service.settings import home as home_of
        from treadle.jobs.service.settings import load_settings

        given: dict[str, Any] = {
            "port": port,
            "host": host,
            "max_running": max_running,
            "allow_roots": [_absolute(place) for place in allow_root] if allow_root else None,
            "allow_code": allow_code,
            "root": None if root is None else _absolute(root),
            "database": database,
            "certificate": certificate,
            "key": key,
        }
        if scheduler is not None:
            given["cluster"] = {"profile": "address", "address": scheduler}
        elif workers is not None:
            given["cluster"] = {"profile": "local", "workers": workers}
        folder = home_of(home)
        serve(load_settings(folder, {name: value for name, value in given.items() if value is not None}), folder)


def down(home: Home = None, debug: Debug = False) -> None:
    """Stop the service, its cluster and its jobs; jobs go on when it starts again."""
    with messages(debug):
        from treadle.jobs.service.serve import down as stop
        from treadle.jobs.service.settings import home as home_of

        folder = home_of(home)
        print(f"stopped the service of {folder}" if stop(folder) else f"no service runs with {folder}")


@tokens.command("add")
def add_token(
    name: Annotated[str, typer.Argument(help="Whose it is, in the audit log.", show_default=False)],
    scope: Annotated[str, typer.Option(help="read, submit or admin; each includes those before it.")] = "submit",
    days: Annotated[float | None, typer.Option(min=0.001, help="Until it expires; else never.")] = None,
    database: Database = None,
    home: Home = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Make a token, and print it: it is not kept, and cannot be shown again."""
    with messages(debug, as_json):
        from treadle.jobs.service.access import scope_of

        with _access(home, database) as access:
            token = access.add(name, scope_of(scope), days)
        print(json.dumps({"name": name, "scope": scope, "token": token}) if as_json else token)


@tokens.command("list")
def list_tokens(database: Database = None, home: Home = None, as_json: Json = False, debug: Debug = False) -> None:
    """List names and scopes."""
    with messages(debug, as_json):
        with _access(home, database) as access:
            found = access.tokens()
        if as_json:
            print(json.dumps(found))
        else:
            for row in found:
                print(f"{row['name']:<24} {row['scope']}")


@tokens.command("remove")
def remove_token(
    name: Annotated[str, typer.Argument(help="As `treadle tokens list` shows it.", show_default=False)],
    database: Database = None,
    home: Home = None,
    debug: Debug = False,
) -> None:
    """Have a token refused from now on."""
    with messages(debug):
        with _access(home, database) as access:
            access.remove(name)
        print(f"removed the token {name}")


def certs(
    folder: Annotated[Path, typer.Argument(help="Folder to write into.", show_default=False)],
    host: Annotated[
        list[str] | None, typer.Option(help="Name or address that clients use; repeatable. Else localhost.")
    ] = None,
    days: Annotated[int, typer.Option(min=1, help="Until they expire.")] = 365,
    debug: Debug = False,
) -> None:
    """Make a certificate authority, and certificates for the service and for Dask."""
    with messages(debug):
        from treadle.cluster.certificates import make_certificates

        for path in make_certificates(folder, host or ["localhost", "127.0.0.1"], days):
            print(path)


def _access(home: str | None, database: str | None) -> Any:
    from treadle.jobs.service.service import access_to
    from treadle.jobs.service.settings import home as home_of
    from treadle.jobs.service.settings import load_settings

    folder = home_of(home)
    return access_to(load_settings(folder, {} if database is None else {"database": database}), folder)


def _absolute(place: str) -> str:
    import os

    return place if "://" in place else os.path.abspath(place)
