"""docs/reference/tables.md, from the metadata of SQLAlchemy."""

from __future__ import annotations

from sqlalchemy import Column, Index, Table
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.schema import DefaultClause

from headgate.shared.database import tables as module
from headgate.shared.database.tables import metadata
from tests.docs.reference.markdown import document, item, paragraph, sentence
from tests.docs.reference.source import comments_above

INTRO = """
The same tables stand in PostgreSQL and in SQLite; `headgate db upgrade` makes them and `headgate db
check` compares them. Types are those of PostgreSQL.
"""


POSTGRESQL = PGDialect()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped


def page() -> str:
    """Return the page."""
    about = paragraph(module.__doc__ or "")
    return document("Tables", INTRO, about, *map(_section, metadata.tables.values()))


def _section(table: Table) -> str:
    words = table.comment or comments_above(module).get(table.name, "")
    columns = [_column(column) for column in table.columns]
    indexes = [_index(index) for index in sorted(table.indexes, key=lambda index: str(index.name))]
    parts = [f"## {table.name}", paragraph(sentence(words)), "\n".join(columns)]
    if indexes:
        parts.append("Indexes:\n\n" + "\n".join(indexes))
    return "\n\n".join(part for part in parts if part)


def _column(column: Column[object]) -> str:
    facts = [column.type.compile(dialect=POSTGRESQL).lower()]
    if column.primary_key:
        facts.append("primary key")
    elif column.nullable:
        facts.append("may be null")
    if isinstance(column.server_default, DefaultClause):
        facts.append(f"default {column.server_default.arg}")
    words = f": {sentence(column.comment)}" if column.comment else ""
    return item(f"`{column.name}` ({', '.join(facts)}){words}")


def _index(index: Index) -> str:
    names = ", ".join(f"`{column.name}`" for column in index.columns)
    return item(f"`{index.name}`: {names}{' (unique)' if index.unique else ''}")
