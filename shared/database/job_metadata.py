"""The metadata of jobs as rows, by which lists find jobs.

A job without metadata has no row. Of the others each plain value at the top level is one: a text, a
number, true or false. Lists, objects and long texts stay in the request only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import ColumnElement, Connection, select

from headgate.shared.database.many_rows import insert_all
from headgate.shared.database.tables import job_metadata, jobs

MAX_KEY, MAX_VALUE = 128, 256
"""Characters; an entry of PostgreSQL's index holds them in whatever alphabet."""

MAX_PAIRS = 32
"""How many pairs of one job can be found."""

Pairs = tuple[tuple[str, str], ...]


def pairs_of(metadata: Mapping[str, Any]) -> Pairs:
    """Return the pairs of name and text by which the job is found."""
    found = []
    for key, value in metadata.items():
        text = text_of(value)
        if text is not None and _fits(key, MAX_KEY) and _fits(text, MAX_VALUE):
            found.append((key, text))
    return tuple(found[:MAX_PAIRS])


def text_of(value: object) -> str | None:
    """Return the value as a list is asked for it: `true`, `7`, the text; None for other values."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) else None


def _fits(text: str, most: int) -> bool:
    return len(text) <= most and "\0" not in text  # PostgreSQL's text cannot hold it


def add_metadata(connection: Connection, found: Iterable[tuple[str, Pairs]]) -> None:
    """Write the pairs of new jobs, given with their ids."""
    rows = [
        {"key": key, "value": value, "job_id": job_id}
        for job_id, pairs in found
        for key, value in pairs
    ]
    if rows:
        insert_all(connection, job_metadata, rows)


def has_pair(key: str, value: str) -> ColumnElement[bool]:
    """Return the condition for jobs with this pair."""
    columns = job_metadata.c
    return jobs.c.id.in_(select(columns.job_id).where(columns.key == key, columns.value == value))
