"""Finds the job or the batch that the beginning of an id means."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Column, Connection, Engine, func, select

from headgate.shared.database.engine import reading
from headgate.shared.database.tables import audit, batches, jobs
from headgate.shared.errors import WrongUse

SHORTEST = 6
"""How many characters of an id must be given."""

BATCH = "batch_"
_FULL = 36
_SHOWN = 5
_AFTER_ALL = "zzzz"
"""It sorts after whatever follows in an id, in the order of any language of a database."""


def may_be_short(given: str) -> bool:
    """Return whether the text can be the beginning of an id, and is not a whole one."""
    return SHORTEST <= len(given) < _FULL and "\0" not in given


def job_id_of(engine: Engine, given: str, option: str = "ID") -> str:
    """Return the id of the only job whose id begins so; the text as it is if there is none.

    A whole id is returned without a look. Raise WrongUse, with some of them, if several begin so.
    """
    if not may_be_short(given):
        return given
    return _only(engine, given, (jobs.c.id, audit.c.job_id), option)


def batch_id_of(engine: Engine, given: str, option: str = "ID") -> str:
    """Return the id of the only batch whose id begins so, with or without `batch_`."""
    digits = given.removeprefix(BATCH)
    if not may_be_short(digits):
        return given
    found = _only(engine, BATCH + digits, (batches.c.id,), option)
    return given if found == BATCH + digits else found


def _only(engine: Engine, begin: str, columns: Iterable[Column[str]], option: str) -> str:
    with reading(engine) as connection:
        for column in columns:
            if found := _beginning(connection, column, begin):
                break
        else:
            return begin
    if len(found) == 1 or begin in found:
        return begin if begin in found else found[0]
    some = ", ".join(found[:_SHOWN]) + (", ..." if len(found) > _SHOWN else "")
    raise WrongUse(option, begin, f"several ids begin so; give more of it: {some}")


def _beginning(connection: Connection, column: Column[str], begin: str) -> list[str]:
    """Return some of the ids that begin so, in their order."""
    # The bounds are for the index; their order is that of the database's language.
    query = select(column).where(
        column >= begin, column <= begin + _AFTER_ALL, func.substr(column, 1, len(begin)) == begin
    )
    return list(connection.scalars(query.order_by(column).limit(_SHOWN + 1)))
