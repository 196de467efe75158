"""`headgate db`: the tables and their migrations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from headgate.producer.cli.commands import HELP
from headgate.producer.cli.terminal.exit_codes import ask
from headgate.producer.cli.terminal.output import document, json_option, line

if TYPE_CHECKING:
    from sqlalchemy import Engine


@click.group(context_settings=HELP)
def db() -> None:
    """The database and its migrations."""


@db.command()
def upgrade() -> None:
    """Bring the tables to the newest revision."""
    from headgate.shared.database import migrate
    from headgate.shared.database.engine import reading

    with _database() as (engine, name):
        changed = migrate.upgrade(engine)
        with reading(engine) as connection:
            found = migrate.revision(connection)
        line(f"{name}: {'upgraded to' if changed else 'is at'} {found}")


@db.command()
@click.argument("revision")
@click.option("--yes", is_flag=True, help="Do not ask.")
def downgrade(revision: str, yes: bool) -> None:
    """Bring the tables back to REVISION (`base`: remove them, with all they hold)."""
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
            remedy = f"the tables are at {found}, from where no way leads back to it"
            if found not in known:
                remedy = f"the tables are at {found}: use the newer headgate that upgraded them"
            raise WrongUse("REVISION", revision, remedy)
        if not yes:
            ask(f"{name}: downgrade to {revision}? Rows may be lost")
        migrate.downgrade(engine, revision)
        line(f"{name}: is at {revision}")


@db.command()
@json_option
def check(as_json: bool) -> int:
    """Tell whether the database answers and has the tables that are needed, and what differs."""
    from headgate.producer.admin import schema_diff
    from headgate.shared.database import migrate
    from headgate.shared.database.engine import reading

    with _database() as (engine, name):
        with reading(engine) as connection:
            found = migrate.revision(connection)
            differences = schema_diff.differences(connection) if found else []
        fits = migrate.fits(found) and not any(one.harms for one in differences)
        if as_json:
            document(
                {
                    "database": name, "revision": found, "needed": migrate.NEWEST, "ok": fits,
                    "differences": [one.words for one in differences],
                }
            )  # fmt: skip
            return 0 if fits else 1
        if migrate.fits(found):
            line(f"{name}: is at {found}")
        elif migrate.is_ahead(found):
            line(f"{name}: made by a newer headgate; needed {migrate.NEWEST}, is {found}")
        else:
            state = found or "without tables"
            line(f"{name}: run `headgate db upgrade`; needed {migrate.NEWEST}, is {state}")
        for one in differences:
            line(one.words)
        return 0 if fits else 1


@contextmanager
def _database() -> Iterator[tuple[Engine, str]]:
    """The engine of the database that the settings name, and its name fit to be shown."""
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
