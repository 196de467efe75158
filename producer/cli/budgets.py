"""`headgate budgets`: what is spent of each budget."""

from __future__ import annotations

import click

from headgate.producer.cli.terminal.exit_codes import say
from headgate.producer.cli.terminal.output import document, json_option, rows
from headgate.producer.cli.terminal.session import opened


@click.command()
@json_option
def budgets(as_json: bool) -> None:
    """Show what is spent of each budget today and this month (UTC), and what jobs hold of it.

    state: open; soft (bulk jobs wait, or are asked of a cheaper model); spent (all is refused);
    unread (jobs wait for a worker to read the record). `headgate limits set tenant/acme
    usd_per_day=20` changes a budget at once.
    """
    from headgate.producer.admin.budgets import report

    with opened() as at:
        found = report(at)
    if as_json:
        document([row.as_json() for row in found])
        return
    if not found:
        say("no budget is set: the catalog's [budget] and `headgate limits set` do")
        return
    names = ("scope", "period", "budget", "spent", "held", "share", "state", "from")
    cells = (
        (
            row.scope, row.period, row.budget_usd, row.spent_usd, row.held_usd,
            None if row.share is None else f"{row.share:.1%}", row.state, row.whence,
        )
        for row in found
    )  # fmt: skip
    rows(names, cells, optional=("from", "share"))
