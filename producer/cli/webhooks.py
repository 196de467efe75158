"""`headgate webhooks`: the webhooks of tenants, and the events that were sent to them."""

from __future__ import annotations

from typing import Any

import click

from headgate.producer.cli.commands import HELP
from headgate.producer.cli.terminal import cells
from headgate.producer.cli.terminal.exit_codes import DONE
from headgate.producer.cli.terminal.options import parse_seconds
from headgate.producer.cli.terminal.output import (
    json_option,
    print_json,
    print_line,
    print_note,
    print_pairs,
    print_table,
    printable,
)
from headgate.producer.cli.terminal.session import open_database

STATES = ("waiting", "pending", "delivered", "failed", "disabled")
"""As in `headgate.producer.admin.webhooks`, which takes long to import."""

TENANT = click.option("--tenant", metavar="T", default="default", help="The tenant.")

_STATE = click.option("--state", type=click.Choice(STATES), help="Only those in this state.")
_OF_TENANT = click.option("--tenant", metavar="T", help="Only those of this tenant.")


@click.group(context_settings=HELP)
def webhooks() -> None:
    """Set webhooks, show the events that were sent, and send them again.

    A webhook is a URL that is called when a job or a batch has ended. A request names it as
    `webhook_url`, or its tenant has one.

    \b
    Example: headgate webhooks set https://hooks.example.com/llm --tenant acme
    """


@webhooks.command("set")
@click.argument("url", metavar="URL")
@TENANT
@click.option(
    "--event", "events", multiple=True, metavar="E",
    help="An event that the URL gets, such as job.failed or batch.*; repeatable (default: all).",
)  # fmt: skip
@json_option
def set_(url: str, tenant: str, events: tuple[str, ...], as_json: bool) -> None:
    """Give the tenant the webhook URL. Workers know it within 5 seconds.

    A tenant has one URL. It gets the events of all jobs of the tenant that name no URL themselves,
    and of its batches; jobs of batches make no event for it.

    \b
    Example: headgate webhooks set https://hooks.example.com/llm --event "batch.*"
    """
    from headgate.producer.admin.webhooks import set_url
    from headgate.shared import settings

    with open_database() as engine:
        found = set_url(engine, tenant, url, events, settings.load().webhook_targets)
    if as_json:
        print_json(found)
        return
    print_line(f"the webhook of {printable(tenant)} is {found['url']}")
    print_note("its secret: `headgate webhooks secret show`")


@webhooks.command()
@TENANT
def unset(tenant: str) -> None:
    """Take its webhook from the tenant. Its secret stays."""
    from headgate.producer.admin.webhooks import unset_url

    with open_database() as engine:
        unset_url(engine, tenant)
    print_line(f"{printable(tenant)} has no webhook any more")


@webhooks.command()
@json_option
def tenants(as_json: bool) -> None:
    """List the tenants with a webhook or a secret.

    \b
    state  on        events are sent
           off       the tenant has a secret, and no URL
           disabled  the URL answered 410; set it again to go on
    """
    from headgate.producer.admin.webhooks import tenants as all_tenants

    with open_database() as engine:
        found = all_tenants(engine)
    if as_json:
        for one in found:
            print_json(one)
        return
    names = ("tenant", "state", "url", "events", "previous_until")
    rows = (
        (one["tenant"], cells.state(one["state"]), one["url"],
         " ".join(one["events"] or ()) or "all", one["previous_until"])
        for one in found
    )  # fmt: skip
    print_table(names, rows, optional=("previous_until",))


@webhooks.command("list")
@_STATE
@_OF_TENANT
@click.option("--job", "job_id", metavar="ID", help="Only that of this job.")
@click.option("--batch", "batch_id", metavar="ID", help="Only those of this batch.")
@click.option(
    "--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, metavar="N",
    help="How many, the newest first.",
)  # fmt: skip
@json_option
def list_(limit: int, as_json: bool, **wanted: str | None) -> None:
    """List events, the newest first.

    \b
    state  waiting    the batch has not ended
           pending    it is sent, and tried again for a day
           delivered  the receiver answered 2xx
           failed     a day has passed
           disabled   the receiver answered 410, or the tenant has no webhook
    """
    from headgate.producer.admin.webhooks import EventFilter
    from headgate.producer.admin.webhooks import events as find

    with open_database() as engine:
        found = find(engine, EventFilter(**wanted), limit)
    if as_json:
        for one in found:
            print_json(one)
        return
    names = ("id", "event", "state", "tenant", "job_id", "attempts", "http_status", "error",
             "created_at", "next_at", "url")  # fmt: skip
    rows = (
        (one["id"], one["event"], cells.state(one["state"]), one["tenant"],
         one["job_id"] or one["batch_id"], cells.number(one["attempts"]), one["http_status"],
         one["error"], one["created_at"], one["next_at"], one["url"])
        for one in found
    )  # fmt: skip
    optional = ("url", "next_at", "created_at", "tenant", "error", "http_status")
    print_table(names, rows, optional=optional)


@webhooks.command()
@click.argument("event_id", metavar="ID")
@json_option
def show(event_id: str, as_json: bool) -> None:
    """Show the event ID and its body."""
    from headgate.producer.admin.webhooks import event

    with open_database() as engine:
        found = event(engine, event_id)
    if as_json:
        print_json(found)
        return
    import json

    body = json.dumps(found.pop("body"))
    print_pairs([*((name, "-" if value is None else value) for name, value in found.items()),
                 ("body", body)])  # fmt: skip


@webhooks.command()
@click.argument("ids", metavar="[ID]...", nargs=-1)
@_STATE
@_OF_TENANT
@json_option
def resend(ids: tuple[str, ...], state: str | None, tenant: str | None, as_json: bool) -> int:
    """Send events again, under their ids, for a day.

    Name events by their ids, or choose them by --state, and by --tenant among these.

    \b
    Example: headgate webhooks resend --state failed --tenant acme
    """
    from headgate.producer.admin.webhooks import EventFilter, chosen
    from headgate.producer.admin.webhooks import resend as send

    if bool(ids) == bool(state):
        raise click.UsageError("give ids of events, or --state")
    with open_database() as engine:
        done = send(engine, ids or chosen(engine, EventFilter(state, tenant)))
    for one in done:
        if as_json:
            print_json({"id": one, "state": "pending"})
        else:
            print_line(f"{one} is sent again")
    if not done:
        print_note("there is no such event that can be sent")
    return DONE


@webhooks.group()
def secret() -> None:
    """Create, show and rotate the secret that signs the events of a tenant."""


@secret.command()
@TENANT
@json_option
def create(tenant: str, as_json: bool) -> None:
    """Create the secret of a tenant that has none, and print it.

    A worker creates it before the first event, if you do not.
    """
    from headgate.producer.admin.webhooks import create_secret

    with open_database() as engine:
        _print_secret(tenant, create_secret(engine, tenant), as_json)


@secret.command("show")
@TENANT
@json_option
def show_secret_(tenant: str, as_json: bool) -> None:
    """Print the secret of the tenant."""
    from headgate.producer.admin.webhooks import show_secret

    with open_database() as engine:
        _print_secret(tenant, show_secret(engine, tenant), as_json)


@secret.command()
@TENANT
@click.option(
    "--grace", metavar="TIME", default="24h", show_default=True,
    help="How long the old secret signs, too; 0 ends it at once.",
)  # fmt: skip
@json_option
def rotate(tenant: str, grace: str, as_json: bool) -> None:
    """Give the tenant a new secret and print it.

    For the time of grace events have a signature by each of the two secrets, so that no receiver
    refuses one. A second rotation ends an older secret at once.
    """
    from headgate.producer.admin.webhooks import rotate_secret

    grace_ms = round(parse_seconds(grace, "--grace") * 1000)
    with open_database() as engine:
        _print_secret(tenant, rotate_secret(engine, tenant, grace_ms), as_json)


def _print_secret(tenant: str, value: str, as_json: bool) -> None:
    facts: dict[str, Any] = {"tenant": tenant, "secret": value}
    if as_json:
        print_json(facts)
    else:
        print_line(value)
