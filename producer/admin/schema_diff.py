"""Lists the differences between the tables in a database and those that this release needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection

from headgate.shared.database.tables import metadata


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference. `harms`: whether this release cannot work with it."""

    text: str
    harms: bool


def differences(connection: Connection) -> list[Difference]:
    """Return all differences of our tables; other tables in the database are ignored."""
    compared = MigrationContext.configure(
        connection,
        opts={
            "compare_type": True,
            "compare_server_default": True,
            "include_name": lambda name, kind, _parents: kind != "table" or name in metadata.tables,
        },
    )
    return list(_flatten(compare_metadata(compared, metadata)))


def _flatten(found: list[Any]) -> Iterator[Difference]:
    for entry in found:
        if isinstance(entry, list):
            yield from _flatten(entry)
        else:
            yield _describe(*entry)


def _describe(kind: str, *facts: Any) -> Difference:
    match kind, facts:
        case "add_table", (table,):
            return Difference(f"table {table.name} is missing", True)
        case "add_column", (_, table, column):
            return Difference(f"column {table}.{column.name} is missing", True)
        case "remove_column", (_, table, column):
            needs_value = not column.nullable and column.server_default is None
            state = "is unknown to this release"
            if needs_value:
                state = "is unknown to this release and needs a value"
            return Difference(f"column {table}.{column.name} {state}", needs_value)
        case (("add_index" | "remove_index"), (index,)):
            state = "is missing" if kind == "add_index" else "is unknown to this release"
            harms = kind == "add_index" or bool(index.unique)
            return Difference(f"index {index.name} on {index.table.name} {state}", harms)
        case (
            ("modify_type" | "modify_nullable" | "modify_default"),
            (_, table, column, _, is_, to),
        ):
            what = {"type": "type", "nullable": "NULL allowed", "default": "default"}[kind[7:]]
            needed = f"should be {_shown(to)}, is {_shown(is_)}"
            harms = kind != "modify_nullable" or is_ is False
            return Difference(f"column {table}.{column}: {what}: {needed}", harms)
        case _:
            return Difference(f"{kind.replace('_', ' ')}: {facts[-1]}", True)


def _shown(value: Any) -> str:
    text = str(getattr(value, "arg", value))
    return {"True": "yes", "False": "no", "None": "none"}.get(text, text)
