"""`headgate pause` and `headgate resume`: pools, tenants and queues that an operator holds back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import click

from headgate.producer.cli.terminal.output import document, json_option, line, printable, rows
from headgate.producer.cli.terminal.session import opened

if TYPE_CHECKING:
    from headgate.producer.admin.limits import Kind

KIND = click.Choice(["pool", "tenant", "queue"])


@click.command()
@click.argument("kind", type=KIND, required=False)
@click.argument("name", required=False)
@json_option
def pause(kind: str | None, name: str | None, as_json: bool) -> None:
    """Start no more jobs of a pool, a tenant or a queue; alone: list what is paused.

    Jobs that run go on; those that wait keep their place.
    """
    from headgate.producer.admin import limits

    if kind is not None and name is None:
        raise click.UsageError(f"name the {kind}: headgate pause {kind} NAME")
    with opened() as at:
        if kind is None or name is None:
            found = [_facts(member) for member in limits.paused_members(at)]
            if as_json:
                for one in found:
                    document(one)
            else:
                rows(("kind", "name"), [(one["kind"], one["name"]) for one in found])
            return
        changed = limits.pause(at, limits.member_of(at, cast("Kind", kind), name))
    if as_json:
        document({"kind": kind, "name": name, "paused": True, "changed": changed})
    else:
        line(f"{kind} {printable(name)} is paused{'' if changed else ' already'}")


@click.command()
@click.argument("kind", type=click.Choice([*KIND.choices, "model"]))
@click.argument("name")
@json_option
def resume(kind: str, name: str, as_json: bool) -> None:
    """Start jobs of a pool, a tenant or a queue again; of a pool also where money had run out.

    Of a model: it is asked again at once, although its circuit breaker is open.
    """
    from headgate.producer.admin import limits

    if kind == "model":
        _resume_model(name, as_json)
        return
    with opened() as at:
        found = limits.resume(at, limits.member_of(at, cast("Kind", kind), name))
    if as_json:
        document({"kind": kind, "name": name, "paused": False, "changed": found.was_paused,
                  "gates_opened": found.opened})  # fmt: skip
        return
    words = "goes on" if found.was_paused else "was not paused"
    if found.opened:
        words += f"; opened where it was out of money ({found.opened} of its keys)"
    line(f"{kind} {printable(name)} {words}")


def _resume_model(name: str, as_json: bool) -> None:
    from headgate.producer.admin.health import resume_model

    with opened() as at:
        closed = resume_model(at, name)
    if as_json:
        document({"kind": "model", "name": name, "breakers_closed": closed})
    else:
        told = f"closed ({closed} of its keys)" if closed else "was open on none of its keys"
        line(f"model {printable(name)}: its breaker {told}")


def _facts(member: str) -> dict[str, Any]:
    from headgate.shared.admission.scopes import unquoted

    kind, _, name = member.partition("/")
    return {"kind": kind, "name": unquoted(name) if kind == "tenant" else name}
