"""`headgate pause` and `headgate resume`: pools, tenants and queues that an operator pauses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import click

from headgate.producer.cli.terminal.output import (
    json_option,
    print_json,
    print_line,
    print_table,
    printable,
)
from headgate.producer.cli.terminal.session import open_session

if TYPE_CHECKING:
    from headgate.producer.admin.limits import Kind
    from headgate.producer.waits.pauses import Pause
    from headgate.shared.admission.limits import OpenedGate

KIND = click.Choice(["pool", "tenant", "queue"])


@click.command()
@click.argument("kind", type=KIND, required=False)
@click.argument("name", required=False)
@json_option
def pause(kind: str | None, name: str | None, as_json: bool) -> None:
    """Pause a pool, a tenant or a queue, or list what is paused.

    Running jobs finish. Waiting jobs keep their place. New jobs are accepted and wait. Without
    arguments, the command lists what is paused.

    \b
    Examples:
      headgate pause pool openai/gpt-4o-mini
      headgate pause tenant acme
      headgate pause queue headgate.bulk.fast
    """
    from headgate.producer.admin import limits

    if kind is not None and name is None:
        raise click.UsageError(f"the name is missing; write headgate pause {kind} NAME")
    with open_session() as at:
        if kind is None or name is None:
            found = [_facts(member, pause) for member, pause in limits.pauses(at).items()]
            if as_json:
                for one in found:
                    print_json(one)
            else:
                names = ("kind", "name", "since", "by")
                print_table(names, [[one[name] for name in names] for one in found])
            return
        changed = limits.pause(at, limits.member_of(at, cast("Kind", kind), name))
    if as_json:
        print_json({"kind": kind, "name": name, "paused": True, "changed": changed})
    else:
        print_line(f"{kind} {printable(name)} is paused{'' if changed else ' already'}")


@click.command()
@click.argument("kind", type=click.Choice([*KIND.choices, "model"]))
@click.argument("name")
@json_option
def resume(kind: str, name: str, as_json: bool) -> None:
    """Resume a pool, a tenant, a queue or a model.

    \b
    pool           start its jobs again; also open it if its
                   provider had asked us to wait, or had refused
                   calls because its credit was used up
    tenant, queue  start its jobs again
    model          close its circuit breaker and call it at once

    \b
    Example: headgate resume model gpt-4o-mini
    """
    from headgate.producer.admin import limits

    if kind == "model":
        _resume_model(name, as_json)
        return
    with open_session() as at:
        found = limits.resume(at, limits.member_of(at, cast("Kind", kind), name))
    gates = [_gate_facts(one) for one in found.opened]
    if as_json:
        print_json({"kind": kind, "name": name, "paused": False, "changed": found.was_paused,
                  "gates_opened": len(gates), "gates": gates})  # fmt: skip
        return
    text = "is resumed" if found.was_paused else "was not paused"
    if kind == "pool" and not gates:
        text += ", and no gate of it was shut"
    print_line(f"{kind} {printable(name)} {text}")
    for gate in gates:
        print_line(_gate_line(gate))


_REASONS = {
    "limited": "its provider had refused a call by a limit",
    "slow": "its provider had asked for slower growth",
    "flex": "the flex tier had no capacity",
    "money": "the account was out of credit",
}
"""Why a gate was shut, in words."""


def _gate_facts(one: OpenedGate) -> dict[str, Any]:
    """Return a gate as the JSON output shows it; `until` is null where nobody knew the end."""
    from headgate.shared.broker.figures import FAR_MS
    from headgate.shared.job.ids import rfc3339

    until = None if one.until_ms >= FAR_MS else rfc3339(one.until_ms)
    return {"pool": one.pool, "key": one.key, "why": one.why, "until": until,
            "asked_until": rfc3339(one.asked_ms)}  # fmt: skip


def _gate_line(gate: dict[str, Any]) -> str:
    until = f"until {gate['until']}" if gate["until"] else "with no end"
    line = f"opened {printable(gate['pool'])} ({gate['key']}), which was shut {until}"
    line += f": {_REASONS.get(gate['why'], printable(gate['why']))}"
    if gate["asked_until"]:
        line += f", and had asked us to wait until {gate['asked_until']}"
    return line


def _resume_model(name: str, as_json: bool) -> None:
    from headgate.producer.admin.health import resume_model

    with open_session() as at:
        closed = resume_model(at, name)
    if as_json:
        print_json({"kind": "model", "name": name, "breakers_closed": closed})
    else:
        text = f"breaker closed on {closed} of its keys" if closed else "no breaker was open"
        print_line(f"model {printable(name)}: {text}")


def _facts(member: str, pause: Pause) -> dict[str, Any]:
    from headgate.shared.admission.scopes import unquoted
    from headgate.shared.job.ids import rfc3339

    kind, _, name = member.partition("/")
    name = unquoted(name) if kind == "tenant" else name
    return {"kind": kind, "name": name, "since": rfc3339(pause.since_ms), "by": pause.by}
