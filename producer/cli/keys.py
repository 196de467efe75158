"""`headgate keys`: the keys of the gateway's callers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal, get_args

import click

from headgate.producer.callers.caller import Scope
from headgate.producer.cli.commands import HELP
from headgate.producer.cli.terminal import cells
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

if TYPE_CHECKING:
    from headgate.producer.callers.keys import GatewayKey
    from headgate.producer.callers.store import NewKey


@click.group(context_settings=HELP)
def keys() -> None:
    """Create, show, rotate and revoke the keys of the gateway's callers.

    A new key is printed once, and is stored nowhere: the database has its SHA-256.

    \b
    Example: KEY=$(headgate keys create web --tenant acme)
    """


@keys.command()
@click.argument("name")
@click.option("--tenant", metavar="T", default="default", help="Whose calls these are.")
@click.option("--user", metavar="U", help="The user of the calls.")
@click.option("--any-user", is_flag=True, help="Each call may name its user.")
@click.option("--any-tenant", is_flag=True, help="Each call may name its tenant.")
@click.option("--tier", metavar="TIER", help="The tier of the calls.")
@click.option(
    "--scope", "scopes", multiple=True, type=click.Choice(get_args(Scope)),
    help="What the key may do; repeat for more (default: chat, embeddings and jobs).",
)  # fmt: skip
@click.option(
    "--model", "models", multiple=True, metavar="M",
    help="A model that the key may name; repeat for more (default: all).",
)  # fmt: skip
@click.option("--rpm", type=click.IntRange(1, 100_000_000), metavar="N", help="Calls a minute.")
@click.option("--tpm", type=click.IntRange(1, 10**12), metavar="N", help="Tokens a minute.")
@click.option("--budget", metavar="USD/PERIOD", help="5/day or 100/month: what it may spend.")
@click.option(
    "--origin", "origins", multiple=True, metavar="ORIGIN",
    help="A web page's origin that may use the key; repeat for more (default: none).",
)  # fmt: skip
@click.option(
    "--expires", metavar="TIME", help="How long it is good, such as 90d (default: for ever)."
)
@json_option
def create(as_json: bool, **given: Any) -> None:
    """Create a key and print it. It is shown only now.

    The key is printed alone on standard output.

    \b
    Scopes:
      chat, embeddings   ask models
      jobs, batches      submit, read and cancel jobs and batches
      usage, view        read usage; read the state of everything
      operate, admin     pause and retry; change limits and keys
      bodies             read prompts and answers of others

    \b
    Examples:
      KEY=$(headgate keys create web --tenant acme --any-user)
      headgate keys create ci --model gpt-4o-mini --budget 5/day --expires 90d
    """
    from headgate.producer.callers import store

    new = _new_key(given)
    with open_database() as engine:
        key, secret = store.create(engine, new)
    _print_secret(key, secret, as_json, f"created key {key.id}; it is not shown again")


@keys.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List all keys, also those that are expired or revoked."""
    from headgate.producer.callers import store
    from headgate.shared.job.ids import now_ms

    with open_database() as engine:
        found = store.all_keys(engine)
    at_ms = now_ms()
    if as_json:
        for key in found:
            print_json(key.as_json(at_ms))
        return
    if not found:
        print_note("there is no key; create one with `headgate keys create NAME`")
        return
    names = ("id", "name", "state", "tenant", "user", "tier", "scopes", "expires", "created")
    rows = (
        (
            key.id, key.name, cells.state(key.state(at_ms)),
            "(any)" if key.caller.any_tenant else key.caller.tenant,
            "(any)" if key.caller.any_user else key.caller.user, key.caller.tier,
            " ".join(sorted(key.caller.scopes)), key.as_json(at_ms)["expires_at"],
            key.as_json(at_ms)["created_at"],
        )
        for key in found
    )  # fmt: skip
    print_table(names, rows, optional=("created", "tier", "expires", "scopes"))


@keys.command()
@click.argument("key_id", metavar="ID")
@json_option
def show(key_id: str, as_json: bool) -> None:
    """Show what the key ID may do. The key itself is stored nowhere."""
    from headgate.producer.callers import store
    from headgate.shared.job.ids import now_ms

    with open_database() as engine:
        found = store.show(engine, key_id).as_json(now_ms())
    if as_json:
        print_json(found)
        return
    print_pairs([(name, _in_words(value)) for name, value in found.items()])


@keys.command()
@click.argument("key_id", metavar="ID")
@click.option(
    "--grace", metavar="TIME", default="24h", show_default=True,
    help="How long the old key stays good, too; 0 ends it at once.",
)  # fmt: skip
@json_option
def rotate(key_id: str, grace: str, as_json: bool) -> None:
    """Give the key ID a new secret and print it. It is shown only now.

    The old secret stays good for the time of grace. A second rotation ends an older secret at once.
    """
    from headgate.producer.callers import store

    grace_ms = round(parse_seconds(grace, "--grace") * 1000)
    with open_database() as engine:
        key, secret = store.rotate(engine, key_id, grace_ms)
    ends = f"is good for {grace}" if grace_ms else "has ended"
    _print_secret(key, secret, as_json, f"rotated key {key.id}; the old one {ends}")


@keys.command()
@click.argument("key_id", metavar="ID")
@json_option
def revoke(key_id: str, as_json: bool) -> None:
    """Revoke the key ID. All gateways refuse it within 5 seconds.

    Jobs that came with it go on.
    """
    from headgate.producer.callers import store
    from headgate.shared.job.ids import now_ms

    with open_database() as engine:
        key = store.revoke(engine, key_id)
    if as_json:
        print_json(key.as_json(now_ms()))
    else:
        print_line(f"{key.id} {printable(key.name)} revoked")


def _print_secret(key: GatewayKey, secret: str, as_json: bool, note: str) -> None:
    from headgate.shared.job.ids import now_ms

    if as_json:
        print_json({**key.as_json(now_ms()), "key": secret})
        return
    print_line(secret)
    print_note(note)


def _in_words(value: object) -> object:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "-"
    return {None: "-", True: "yes", False: "no"}.get(value, value)  # type: ignore[call-overload]


def _new_key(given: dict[str, Any]) -> NewKey:
    """Return the new key that the options describe; raise WrongUse."""
    from headgate.producer.callers.new_key import checked
    from headgate.producer.callers.store import NewKey
    from headgate.shared import settings
    from headgate.shared.catalog import catalog
    from headgate.shared.job.ids import now_ms

    amount, period = _budget(given.pop("budget"))
    expires = given.pop("expires")
    lasts_ms = None if expires is None else round(parse_seconds(expires, "--expires") * 1000)
    if not given["scopes"]:
        del given["scopes"]
    new = NewKey(
        **given, budget_usd=amount, budget_period=period,
        expires_at_ms=None if lasts_ms is None else now_ms() + lasts_ms,
    )  # fmt: skip
    return checked(new, catalog.load(settings.load().catalog))


def _budget(text: str | None) -> tuple[str | None, Literal["day", "month"] | None]:
    from headgate.shared.errors import WrongUse

    if text is None:
        return None, None
    match = re.fullmatch(r"([0-9]{1,7}(?:\.[0-9]{1,12})?)/(day|month)", text, re.ASCII)
    if match is None:
        raise WrongUse("--budget", text, "write USD/day or USD/month, such as 5/day or 99.50/month")
    return match[1], "day" if match[2] == "day" else "month"
