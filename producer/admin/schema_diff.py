"""What differs between the tables in a database and those that this code works with, in words."""

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
    """One of them. `harms`: this code does not work with it as it should."""

    words: str
    harms: bool


def differences(connection: Connection) -> list[Difference]:
    """All of them; tables that are not ours are none of our business."""
    compared = MigrationContext.configure(
        connection,
        opts={
            "compare_type": True,
            "compare_server_default": True,
            "include_name": lambda name, kind, _parents: kind != "table" or name in metadata.tables,
        },
    )
    return list(_told(compare_metadata(compared, metadata)))


def _told(found: list[Any]) -> Iterator[Difference]:
    for entry in found:
        if isinstance(entry, list):
            yield from _told(entry)
        else:
            yield _one(*entry)


def _one(kind: str, *facts: Any) -> Difference:
    match kind, facts:
        case "add_table", (table,):
            return Difference(f"table {table.name} is missing", True)
        case "add_column", (_, table, column):
            return Difference(f"column {table}.{column.name} is missing", True)
        case "remove_column", (_, table, column):
            needs_value = not column.nullable and column.server_default is None
            more = "cannot be left out, and is not known here" if needs_value else "is more"
            return Difference(f"column {table}.{column.name} {more}", needs_value)
        case (("add_index" | "remove_index"), (index,)):
            state = "is missing" if kind == "add_index" else "is more"
            harms = kind == "add_index" or bool(index.unique)
            return Difference(f"index {index.name} on {index.table.name} {state}", harms)
        case (
            ("modify_type" | "modify_nullable" | "modify_default"),
            (_, table, column, _, is_, to),
        ):
            what = {"type": "type", "nullable": "NULL allowed", "default": "default"}[kind[7:]]
            needed = f"needed {_shown(to)}, is {_shown(is_)}"
            harms = kind != "modify_nullable" or is_ is False
            return Difference(f"column {table}.{column}: {what}: {needed}", harms)
        case _:
            return Difference(f"{kind.replace('_', ' ')}: {facts[-1]}", True)


def _shown(value: Any) -> str:
    words = str(getattr(value, "arg", value))
    return {"True": "yes", "False": "no", "None": "none"}.get(words, words)
