"""`headgate budgets`: how much of each budget is spent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from headgate.producer.cli.terminal import cells
from headgate.producer.cli.terminal.output import json_option, print_json, print_note, print_table
from headgate.producer.cli.terminal.session import open_session

if TYPE_CHECKING:
    from headgate.producer.admin.budgets import BudgetRow


@click.command()
@json_option
def budgets(as_json: bool) -> None:
    """Show how much of each budget is spent.

    Amounts are in USD, for today and for this month (UTC).

    \b
    spent  the cost of all attempts so far
    held   what running jobs have reserved
    state  open    jobs run
           soft    bulk jobs wait or use a cheaper model
           spent   all jobs are refused
           unread  jobs wait until a worker has added up the ledger
    from   the catalog, or set by an operator

    Change a budget at once with `headgate limits set`.

    \b
    Example: headgate limits set tenant/acme usd_per_day=20
    """
    from headgate.producer.admin.budgets import report

    with open_session() as at:
        found = report(at)
    if as_json:
        print_json([row.as_json() for row in found])
        return
    if not found:
        print_note(
            "no budget is set; set one with `headgate limits set`, or [budget] in the catalog"
        )
        return
    _print_budgets(found)


def _print_budgets(found: Sequence[BudgetRow]) -> None:
    names = ("scope", "period", "budget", "spent", "held", "share", "state", "from")
    rows = (
        (
            row.scope, row.period, cells.usd(row.budget_usd), cells.usd(row.spent_usd),
            cells.usd(row.held_usd),
            cells.amount(None if row.share is None else f"{row.share:.1%}"),
            cells.state(row.state), row.whence,
        )
        for row in found
    )  # fmt: skip
    print_table(names, rows, optional=("from", "share"))
