"""`headgate db`: the tables, their migrations, and the deletion of old rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import click

from headgate.producer.cli.commands import HELP
from headgate.producer.cli.terminal.exit_codes import confirm
from headgate.producer.cli.terminal.options import parse_moment
from headgate.producer.cli.terminal.output import (
    json_option,
    print_json,
    print_line,
    print_note,
    print_table,
)

if TYPE_CHECKING:
    from sqlalchemy import Engine

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


@click.group(context_settings=HELP)
def db() -> None:
    """Create, upgrade or check the tables in the database, and delete old rows."""


@db.command()
def upgrade() -> None:
    """Create the tables, or upgrade them to this release."""
    from headgate.shared.database import migrate
    from headgate.shared.database.engine import reading

    with _database() as (engine, name):
        changed = migrate.upgrade(engine)
        with reading(engine) as connection:
            found = migrate.revision(connection)
        print_line(f"{name}: {'upgraded to' if changed else 'is at'} {found}")


@db.command()
@click.argument("revision")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
def downgrade(revision: str, yes: bool) -> None:
    """Downgrade the tables to REVISION; rows may be lost.

    REVISION is an older revision, or `base` to drop all tables with their content.
    """
    from headgate.shared.database import migrate
    from headgate.shared.database.engine import reading
    from headgate.shared.errors import WrongUse

    known = ["base", *migrate.revisions()]
    if revision not in known:
        raise WrongUse("REVISION", revision, f"no such revision; known: {', '.join(known)}")
    with _database() as (engine, name):
        with reading(engine) as connection:
            found = migrate.revision(connection) or "base"
        if found not in known[known.index(revision) :]:
            remedy = f"the tables are at {found}, which is older; name an earlier revision"
            if found not in known:
                remedy = f"the tables are at {found}; use the newer headgate that upgraded them"
            raise WrongUse("REVISION", revision, remedy)
        if not yes:
            confirm(f"Downgrade {name} to {revision}? Rows may be lost.")
        migrate.downgrade(engine, revision)
        print_line(f"{name}: is at {revision}")


@db.command()
@prune_options
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
    from headgate.shared import settings
    from headgate.shared.database import migrate
    from headgate.shared.setting_types import LEAST_AUDIT_DAYS

    if vacuum and dry_run:
        raise click.UsageError("--vacuum and --dry-run cannot be used together")
    ages = (
        read_age(older_than, "--older-than", 1, "idempotency keys live for a day"),
        read_age(audit_older_than, "--audit-older-than", LEAST_AUDIT_DAYS, "budgets need a month"),
    )
    with _database() as (engine, name):
        before = admin.cutoffs_of(settings.load(), *ages)
        migrate.require_fit(engine)
        found = admin.prune_record(engine, before, dry_run=dry_run, notify=print_note)
        freed = admin.vacuum(engine) if vacuum else None
    if as_json:
        more = {} if freed is None else {"freed_bytes": freed}
        print_json({"database": name, **found.as_json(), **more})
    else:
        show(found, freed)


@db.command()
@json_option
def check(as_json: bool) -> int:
    """Check that the database has the tables of this release.

    It lists all differences. The exit code is 1 if this release cannot work with the tables.
    """
    from headgate.producer.admin import schema_diff
    from headgate.shared.database import migrate
    from headgate.shared.database.engine import reading

    with _database() as (engine, name):
        with reading(engine) as connection:
            found = migrate.revision(connection)
            differences = schema_diff.differences(connection) if found else []
        fits = migrate.fits(found) and not any(one.harms for one in differences)
        if as_json:
            print_json(
                {
                    "database": name, "revision": found, "needed": migrate.NEWEST, "ok": fits,
                    "differences": [one.text for one in differences],
                }
            )  # fmt: skip
            return 0 if fits else 1
        if migrate.fits(found):
            print_line(f"{name}: is at {found}")
        elif migrate.is_ahead(found):
            print_line(
                f"{name}: upgraded by a newer headgate to {found}; "
                f"this release needs {migrate.NEWEST}"
            )
        else:
            state = f"is at {found}" if found else "has no tables"
            print_line(
                f"{name}: {state}; this release needs {migrate.NEWEST}: run `headgate db upgrade`"
            )
        for one in differences:
            print_line(one.text)
        return 0 if fits else 1


@db.command()
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
def adopt(yes: bool) -> None:
    """Give the Redis to the database that the settings name.

    A Redis belongs to the first database that it is used with. Processes with another database
    refuse to start, as jobs would be paid for twice. Use this after you have moved the database, or
    to begin with a new one. End all workers first.
    """
    from headgate.producer.admin import adoption
    from headgate.producer.installation import open_installation

    at = open_installation(any_database=True)
    try:
        with at.reaching():
            found = adoption.look(at)
            if found.is_done:
                print_line(f"{at.redis_name} belongs to {found.mine} already")
                return
            for warning in found.warnings:
                print_note(warning)
            if not yes:
                confirm(f"Give {at.redis_name} to {found.mine}?")
            adoption.adopt(at, found.mine)
            print_line(
                f"{at.redis_name}: belongs to {found.mine} now; before: {found.owner or 'none'}"
            )
    finally:
        at.close()


@contextmanager
def _database() -> Iterator[tuple[Engine, str]]:
    """Open the database that the settings name; yield its engine and its URL without password."""
    from headgate.producer.installation import record_url
    from headgate.shared import settings
    from headgate.shared.database.engine import open_engine, reaching
    from headgate.shared.settings import masked

    in_force = settings.load()
    url = record_url(in_force)
    engine = open_engine(url, in_force.database_timeout_s)
    try:
        with reaching(url):
            yield engine, masked(url)
    finally:
        engine.dispose()
