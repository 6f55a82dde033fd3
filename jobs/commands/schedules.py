"""`treadle schedule`: jobs that a service submits by the clock."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from treadle.jobs.commands.options import Debug, Json, Set, Spec
from treadle.jobs.commands.service_options import AttemptSeconds, Ca, Priority, Retries, Token, Url, print_json, service

schedule = typer.Typer(
    name="schedule", help="Jobs that a service submits by the clock.", no_args_is_help=True, rich_markup_mode=None
)


@schedule.command("put")
def put(
    name: Annotated[str, typer.Argument(help="Another schedule with this name is replaced.", show_default=False)],
    cron: Annotated[
        str,
        typer.Argument(help="Minute, hour, day of the month, month, day of the week: '0 6 * * mon-fri'."),
    ],
    spec: Spec,
    timezone: Annotated[str, typer.Option(help="Of the clock, e.g. Europe/Berlin.")] = "UTC",
    catch_up: Annotated[
        str, typer.Option(help="For times at which the service did not run: none, last or all of them.")
    ] = "last",
    priority: Priority = 0,
    timeout: AttemptSeconds = None,
    retries: Retries = None,
    set_: Set = None,
    url: Url = None,
    token: Token = None,
    ca: Ca = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Submit a job by the clock from now on."""
    with service(url, token, ca, debug, as_json) as client:
        choice: Any = catch_up  # the document says which there are
        made = client.schedule(
            name,
            cron,
            spec,
            timezone=timezone,
            catch_up=choice,
            priority=priority,
            timeout=timeout,
            retries=retries,
            overrides=set_ or (),
        )
        if as_json:
            print_json(made)
        else:
            print(f"{made.name}: next at {made.next.isoformat(sep=' ', timespec='seconds')}")


@schedule.command("list")
def list_schedules(
    url: Url = None, token: Token = None, ca: Ca = None, as_json: Json = False, debug: Debug = False
) -> None:
    """List schedules, and when they submit next."""
    with service(url, token, ca, debug, as_json) as client:
        found = client.schedules()
        if as_json:
            print_json(found)
        else:
            from treadle.jobs.commands import service_console

            service_console.show_schedules(found)


@schedule.command("remove")
def remove(
    name: Annotated[str, typer.Argument(show_default=False)],
    url: Url = None,
    token: Token = None,
    ca: Ca = None,
    debug: Debug = False,
) -> None:
    """Remove a schedule; jobs that it submitted stay."""
    with service(url, token, ca, debug) as client:
        client.unschedule(name)
