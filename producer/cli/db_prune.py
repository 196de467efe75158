"""The options of `headgate db prune`, and how it shows what was deleted."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import click

from headgate.producer.cli.terminal.options import parse_moment
from headgate.producer.cli.terminal.output import print_line, print_note, print_table

if TYPE_CHECKING:
    from headgate.producer.admin.prune import PruneReport

C = TypeVar("C", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--older-than", metavar="D",
        help="Delete jobs and batches that ended so long ago, such as 90d (default: "
        "HEADGATE_KEEP_DAYS).",
    ),
    click.option(
        "--audit-older-than", metavar="D",
        help="Delete audit lines and attempts of jobs that ended so long ago (default: "
        "HEADGATE_KEEP_AUDIT_DAYS).",
    ),
    click.option("--dry-run", is_flag=True, help="Show what would be deleted; delete nothing."),
    click.option(
        "--vacuum", is_flag=True,
        help="Then give the space of a SQLite file back to the disk; nobody can write meanwhile.",
    ),
)  # fmt: skip


def prune_options(command: C) -> C:
    """Give the command the options of `headgate db prune`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def read_age(text: str | None, option: str, least_days: int, why: str) -> timedelta | None:
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


def show(found: PruneReport, freed_bytes: int | None) -> None:
    """Print the report as a table, and what is kept and why as notes."""
    report = found.as_json()
    columns = ("would be deleted" if found.dry_run else "deleted", "rows", "oldest", "newest")
    print_table(columns, [(name, *one.values()) for name, one in report["tables"].items()])
    if found.jobs_before is None:
        print_note("jobs and batches are kept for ever (HEADGATE_KEEP_DAYS=0)")
    if found.audit_before is None:
        which = "KEEP_AUDIT_DAYS" if found.jobs_before else "KEEP_DAYS"
        print_note(f"audit lines and attempts are kept for ever (HEADGATE_{which}=0)")
    for day, reason in found.unpruned.items():
        print_note(f"the audit lines of {day} are kept: {reason}")
    if freed_bytes is not None:
        print_line(f"{freed_bytes / 1e6:.1f} MB given back to the disk")
