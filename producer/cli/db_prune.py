"""`headgate db prune`: delete what is kept no longer."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import click

from headgate.producer.cli.terminal.options import parse_moment
from headgate.producer.cli.terminal.output import (
    json_option,
    print_json,
    print_line,
    print_note,
    print_table,
)

if TYPE_CHECKING:
    from headgate.producer.admin.prune import PruneReport


@click.command()
@click.option(
    "--older-than", metavar="D",
    help="Delete jobs and batches that ended so long ago, such as 90d (default: "
    "HEADGATE_KEEP_DAYS).",
)  # fmt: skip
@click.option(
    "--audit-older-than", metavar="D",
    help="Delete audit lines and attempts of jobs that ended so long ago (default: "
    "HEADGATE_KEEP_AUDIT_DAYS).",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Show what would be deleted; delete nothing.")
@click.option(
    "--vacuum", is_flag=True,
    help="Then give the space of a SQLite file back to the disk; nobody can write meanwhile.",
)  # fmt: skip
@json_option
def prune(
    older_than: str | None,
    audit_older_than: str | None,
    dry_run: bool,
    vacuum: bool,
    as_json: bool,
) -> None:
    """Delete jobs, batches and audit lines that are kept no longer.

    Workers do it each hour by themselves. Open jobs stay, and a batch stays until its last job is
    old enough. Audit lines go by whole days (UTC). Usage stays exact, by day.

    \b
    Example: headgate db prune --older-than 90d --dry-run
    """
    from headgate.producer.admin import prune as admin
    from headgate.producer.cli.db import database
    from headgate.shared import settings
    from headgate.shared.database import migrate
    from headgate.shared.setting_types import LEAST_AUDIT_DAYS

    if vacuum and dry_run:
        raise click.UsageError("--vacuum and --dry-run cannot be used together")
    ages = (
        _age(older_than, "--older-than", 1, "idempotency keys live for a day"),
        _age(audit_older_than, "--audit-older-than", LEAST_AUDIT_DAYS, "budgets need this month"),
    )
    with database() as (engine, name):
        before = admin.cutoffs_of(settings.load(), *ages)
        migrate.require_fit(engine)
        found = admin.prune_record(engine, before, dry_run=dry_run, notify=print_note)
        freed = admin.vacuum(engine) if vacuum else None
    if as_json:
        more = {} if freed is None else {"freed_bytes": freed}
        print_json({"database": name, **found.as_json(), **more})
        return
    _show(found)
    if freed is not None:
        print_line(f"{freed / 1e6:.1f} MB given back to the disk")


def _age(text: str | None, option: str, least_days: int, why: str) -> timedelta | None:
    """Return the age that the option names; raise WrongUse if it is too short."""
    from headgate.shared.errors import WrongUse

    if text is None:
        return None
    found = parse_moment(text, option)
    if not isinstance(found, timedelta):
        raise WrongUse(option, text, "give an age such as 90d")
    if found < timedelta(days=least_days):
        raise WrongUse(option, text, f"use at least {least_days}d: {why}")
    return found


def _show(found: PruneReport) -> None:
    report = found.as_json()
    columns = ("would be deleted" if found.dry_run else "deleted", "rows", "oldest", "newest")
    print_table(columns, [(name, *one.values()) for name, one in report["tables"].items()])
    if found.jobs_before is None:
        print_note("jobs and batches are kept for ever (HEADGATE_KEEP_DAYS=0)")
    if found.audit_before is None:
        which = "KEEP_AUDIT_DAYS" if found.jobs_before else "KEEP_DAYS"
        print_note(f"audit lines and attempts are kept for ever (HEADGATE_{which}=0)")
    for day, reason in found.kept.items():
        print_note(f"the audit lines of {day} are kept: {reason}")
