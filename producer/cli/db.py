"""`headgate db`: the tables and their migrations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from producer.cli.group import HELP
from producer.cli.show import document, json_option, line

if TYPE_CHECKING:
    from sqlalchemy import Engine


@click.group(context_settings=HELP)
def db() -> None:
    """The database and its migrations."""


@db.command()
def upgrade() -> None:
    """Bring the tables to the newest revision."""
    from shared import migrate

    with _database() as (engine, name):
        changed = migrate.upgrade(engine)
        line(f"{name}: {'upgraded to' if changed else 'is at'} {migrate.NEWEST}")


@db.command()
@click.argument("revision")
@click.option("--yes", is_flag=True, help="Do not ask.")
def downgrade(revision: str, yes: bool) -> None:
    """Bring the tables back to REVISION (`base`: remove them, with all they hold)."""
    from shared import migrate
    from shared.errors import WrongUse

    known = ["base", *migrate.revisions()]
    if revision not in known:
        raise WrongUse("REVISION", revision, f"no such revision; known: {', '.join(known)}")
    with _database() as (engine, name):
        with engine.connect() as connection:
            found = migrate.revision(connection) or "base"
        if found not in known[known.index(revision) :]:
            remedy = f"the tables are at {found}, from where no way leads back to it"
            raise WrongUse("REVISION", revision, remedy)
        if not yes:
            _ask(f"{name}: downgrade to {revision}? Rows may be lost")
        migrate.downgrade(engine, revision)
        line(f"{name}: is at {revision}")


def _ask(question: str) -> None:
    """The answer was yes; where nobody can answer, the option that answers is named."""
    try:
        click.confirm(question, abort=True, err=True)
    except click.Abort as end:
        if isinstance(end.__context__, EOFError):
            click.echo(err=True)
            raise click.UsageError("nobody answers on standard input; say --yes") from None
        raise


@db.command()
@json_option
def check(as_json: bool) -> int:
    """Tell whether the database answers and has the newest tables."""
    from shared import migrate

    with _database() as (engine, name):
        with engine.connect() as connection:
            found = migrate.revision(connection)
        newest = found == migrate.NEWEST
        if as_json:
            document({"database": name, "revision": found, "needed": migrate.NEWEST, "ok": newest})
        else:
            state = "is at" if newest else f"run `headgate db upgrade`; needed {migrate.NEWEST}, is"
            line(f"{name}: {state} {found or 'without tables'}")
        return 0 if newest else 1


@contextmanager
def _database() -> Iterator[tuple[Engine, str]]:
    """The engine of the database that the settings name, and its name fit to be shown."""
    from sqlalchemy.exc import InterfaceError, OperationalError

    from producer.installation import require_home
    from shared import settings
    from shared.connections import open_engine
    from shared.errors import Unreachable
    from shared.settings import masked

    in_force = settings.load()
    url = in_force.database_url
    if url is None:
        require_home(in_force)
        url = f"sqlite:///{in_force.home_path / 'headgate.db'}"
    engine = open_engine(url)
    try:
        yield engine, masked(url)
    except (OperationalError, InterfaceError) as error:
        reason = str(error.orig).strip().splitlines()[0]
        raise Unreachable(
            f"the database at {masked(url)}", reason, "check HEADGATE_DATABASE_URL"
        ) from error
    finally:
        engine.dispose()
