"""The reports of a gateway as the objects that the library returns, from the form of `as_json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import TypeAdapter

from headgate.producer.admin.budgets import BudgetRow
from headgate.producer.admin.cache import CacheStats
from headgate.producer.admin.health import HealthReport
from headgate.producer.admin.limits_rows import GateRow, LimitsReport
from headgate.producer.admin.space import DiskUse, Space
from headgate.producer.callers.refused import KeyRefused
from headgate.producer.results.listing import Listed
from headgate.producer.submit.admission_check import AdmissionCheck
from headgate.producer.usage.report import FIGURES, UsageReport, UsageRow
from headgate.shared.admission.breakers import ModelHealth
from headgate.shared.broker.memory import MemoryUse
from headgate.shared.errors import Unreachable
from headgate.shared.routing.router import Route

T = TypeVar("T")

Json = Mapping[str, Any]


_adapters: dict[type, TypeAdapter[Any]] = {}
"""What reads each kind of report; each is made at its first use, which takes some ms."""


def _read(kind: type[T], fields: object) -> T:
    """Return the dataclass with these fields; those of newer gateways are left out."""
    adapter = _adapters.get(kind) or _adapters.setdefault(kind, TypeAdapter(kind))
    found: T = adapter.validate_python(fields)
    return found


def route_in(fields: Json) -> Route:
    """Return the choice of a model."""
    return _read(Route, fields)


def check_in(fields: Json) -> AdmissionCheck:
    """Return whether a request would be let in."""
    return _read(AdmissionCheck, fields)


def listed_in(fields: Json) -> Listed:
    """Return one job of a list."""
    return _read(Listed, fields)


def limits_in(fields: Json) -> LimitsReport:
    """Return the limits in force."""
    return _read(LimitsReport, fields)


def cache_in(fields: Json) -> CacheStats:
    """Return how full the cache is."""
    return _read(CacheStats, fields)


def budget_in(fields: Json) -> BudgetRow:
    """Return one budget in one period."""
    return _read(BudgetRow, {**fields, "whence": fields["from"]})


def usage_in(fields: Json) -> UsageReport:
    """Return who used what."""
    names = tuple(fields["by"])
    rows = tuple(_usage_row(row, names) for row in fields["rows"])
    total = _usage_row(fields["total"], ())
    return UsageReport(names, fields["since"], fields["until"], rows, total)


def _usage_row(fields: Json, names: tuple[str, ...]) -> UsageRow:
    figures = {name: fields[name] for name in FIGURES}
    return UsageRow(key={name: fields[name] for name in names}, **figures)


def health_in(body: Json, gateway: str) -> HealthReport:
    """Return the state of models, servers and workers, from an answer of `/v1/health`.

    `gateway`: how errors name it. Raises Unreachable if Redis or the database is away, and
    KeyRefused if the key may not see more than the short answer.
    """
    fields = body.get("report")
    if fields is None and body.get("servers") == "answer":
        words = "the health of models and servers is shown to keys with the scope view"
        raise KeyRefused(403, "key_not_allowed", words)
    if fields is None:
        reason = "it does not reach its servers" if "servers" in body else "it is away"
        raise Unreachable(gateway, reason, "try again")
    use = fields["memory"]
    memory = MemoryUse(use["used_bytes"], use["limit_bytes"], use["limit_is_set"], use["takes"])
    disks = [_read(DiskUse, disk) for disk in fields["disks"]]
    return HealthReport(
        models=[_read(ModelHealth, one) for one in fields["models"]],
        not_asked=fields["models_not_asked"],
        gates=[_read(GateRow, one) for one in fields["gates"]],
        servers=dict(fields["servers"]),
        workers=fields["workers"],
        space=Space(memory, disks, fields.get("unwritten")),
        strays=dict(fields["strays"]),
        unserved=dict(fields["queues_without_worker"]),
        calls_since=fields["calls_since"],
        calls_until=fields["calls_until"],
    )
