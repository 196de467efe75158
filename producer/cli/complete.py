"""Shell completion: commands, options, and names of models, pools, tenants, jobs and batches.

The shell sets `_HEADGATE_COMPLETE` and calls `headgate`, as click describes it. Values come from
the catalog and the record. Completion starts no server, and offers nothing where one is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

    from headgate.shared.catalog.catalog import Catalog

MOST = 50
"""How many ids are offered, the newest first."""

NEWEST_JOBS = 5_000
"""Tenants are those of so many newest jobs, and of the catalog."""

Values = Callable[[str], Iterable[str]]
"""Returns the values that begin with this text."""


def with_values(command: click.Command) -> click.Command:
    """Return the command, whose parameters know their values by their names."""
    for parameter in command.params:
        values = _values_of(parameter)
        if values is not None and parameter._custom_shell_complete is None:
            parameter._custom_shell_complete = _answering(values)
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            with_values(inner)
    return command


def _answering(values: Values) -> Callable[..., list[Any]]:
    from click.shell_completion import CompletionItem

    def answer(_context: click.Context, _parameter: click.Parameter, start: str) -> list[Any]:
        found: list[str] = []
        with suppress(Exception):  # nobody can read an error in the middle of a line
            found = [one for one in values(start) if one.startswith(start)]
        return [CompletionItem(one) for one in dict.fromkeys(found)]

    return answer


def _values_of(parameter: click.Parameter) -> Values | None:
    """Return what completes the parameter, by its option or its name."""
    names = [*(parameter.opts if isinstance(parameter, click.Option) else ()), parameter.name or ""]
    return next((_BY_NAME[name] for name in names if name in _BY_NAME), None)


def _catalog() -> Catalog:
    from headgate.shared import settings
    from headgate.shared.catalog import catalog

    return catalog.load(settings.load().catalog)


def _models(_start: str) -> Iterable[str]:
    return ("auto", *_catalog().models)


def _model_names(_start: str) -> Iterable[str]:
    return _catalog().models


def _pools(_start: str) -> Iterable[str]:
    found = _catalog()
    return sorted({found.pool(model).key for model in found.models.values()})


def _queues(_start: str) -> Iterable[str]:
    from headgate.shared.broker.queues import all_queues

    return all_queues(_catalog().classes)


def _tiers(_start: str) -> Iterable[str]:
    return _catalog().tiers


def _templates(_start: str) -> Iterable[str]:
    return _catalog().templates


def _tenants(_start: str) -> Iterable[str]:
    from headgate.shared.database.tables import jobs

    known = [name for name in _catalog().tenants if name != "*"]
    newest = _newest(jobs.c.tenant, jobs.c.submitted_at_ms, NEWEST_JOBS)
    return sorted({*known, *newest})


def _providers(_start: str) -> Iterable[str]:
    return _catalog().providers


def _scopes(start: str) -> Iterable[str]:
    """Return the scopes of limits, such as pool/openai/gpt-4o."""
    kinds: dict[str, Values] = {
        "pool": _pools, "tenant": _tenants, "tier": _tiers, "provider": _providers,
    }  # fmt: skip
    kind = start.partition("/")[0]
    if "/" not in start:
        return ("global", "tenant/*", *(f"{name}/" for name in kinds))
    return [f"{kind}/{name}" for name in kinds[kind]("")]


def _jobs(start: str) -> Iterable[str]:
    from headgate.shared.database.tables import jobs

    return _newest(jobs.c.id, jobs.c.submitted_at_ms, MOST, start)


def _batches(start: str) -> Iterable[str]:
    from headgate.shared.database.tables import batches

    return _newest(batches.c.id, batches.c.created_at_ms, MOST, start)


def _keys(start: str) -> Iterable[str]:
    from headgate.shared.database.tables import gateway_keys

    return _newest(gateway_keys.c.id, gateway_keys.c.created_at_ms, MOST, start)


def _newest(
    column: ColumnElement[str], moment: ColumnElement[int], most: int, start: str = ""
) -> list[str]:
    """Return values of the record, the newest first; none if there is no record yet."""
    from sqlalchemy import select

    from headgate.shared import settings
    from headgate.shared.database.engine import open_engine, reading, sqlite_url

    chosen = settings.load()
    url = chosen.database_url
    if url is None:
        file = chosen.home_path / "headgate.db"
        if not file.exists():
            return []
        url = sqlite_url(file)
    engine = open_engine(url, chosen.database_timeout_s)
    try:
        with reading(engine) as connection:
            query = select(column).order_by(moment.desc()).limit(most)
            if start:
                query = query.where(column >= start, column < start + "\U0010ffff")
            return list(connection.scalars(query))
    finally:
        engine.dispose()


_BY_NAME: dict[str, Values] = {
    "--model": _models,
    "names": _model_names,
    "--pool": _pools,
    "--queues": _queues,
    "--tier": _tiers,
    "--template": _templates,
    "--tenant": _tenants,
    "scope": _scopes,
    "job_id": _jobs,
    "ids": _jobs,
    "--batch": _batches,
    "batch_id": _batches,
    "key_id": _keys,
}
"""What completes a parameter, by an option or by the name of an argument."""
