"""The installation for as long as one command reads or changes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from typing import TYPE_CHECKING

from headgate.producer.cli.terminal.output import print_note

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from headgate.producer.installation import Installation
    from headgate.producer.waits.find import FindWaits
    from headgate.shared.catalog.catalog import Catalog


@contextmanager
def open_session() -> Iterator[Installation]:
    """Open the installation; raise Unreachable if one of its servers does not answer."""
    from headgate.producer.installation import open_installation

    at = open_installation()
    try:
        with at.reaching():
            yield at
    finally:
        at.close()


@contextmanager
def open_record() -> Iterator[tuple[Engine, Catalog, FindWaits]]:
    """Give the record, the catalog, and what finds waits; print a note if Redis is away."""
    from headgate.producer.installation import is_of_redis, open_installation, record_alone
    from headgate.producer.waits.find import WaitFinder, no_waits
    from headgate.shared import settings
    from headgate.shared.catalog import catalog
    from headgate.shared.errors import Unreachable

    chosen = settings.load()
    try:
        at = open_installation(chosen)
    except Unreachable as error:
        if not is_of_redis(error):
            raise
        print_note(f"{error}; only the record is read")
    else:
        with closing(at), at.reaching():
            yield at.engine, at.catalog, WaitFinder(at.redis, at.keys)
        return
    with record_alone(chosen) as engine:
        yield engine, catalog.load(chosen.catalog), no_waits


def open_database() -> AbstractContextManager[Engine]:
    """Open the database alone, for what needs no Redis; raise Unreachable if it does not answer."""
    from headgate.producer.installation import record_alone
    from headgate.shared import settings

    return record_alone(settings.load())


def whole_job_id(given: str, option: str = "ID") -> str:
    """Return the id of the job that this beginning of an id means; raise WrongUse if several do."""
    from headgate.producer.results import short_ids

    if not short_ids.may_be_short(given):
        return given
    with open_database() as engine:
        return short_ids.job_id_of(engine, given, option)


def whole_batch_id(given: str, option: str = "ID") -> str:
    """Return the id of the batch that this beginning of an id means."""
    from headgate.producer.results import short_ids

    if not short_ids.may_be_short(given.removeprefix(short_ids.BATCH)):
        return given
    with open_database() as engine:
        return short_ids.batch_id_of(engine, given, option)
