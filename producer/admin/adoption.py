"""Gives a Redis to another database, on purpose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from headgate.producer.installation import Installation
from headgate.producer.waits.find import living_workers
from headgate.shared.servers import same_database
from headgate.shared.servers.same_database import DatabaseName


@dataclass(frozen=True, slots=True)
class Adoption:
    """What would change: the database of this process, the one before, what to know about it."""

    mine: DatabaseName
    owner: DatabaseName | None
    warnings: tuple[str, ...]

    @property
    def is_done(self) -> bool:
        """Whether Redis knows this database by this address already."""
        return self.owner == self.mine


def look(at: Installation) -> Adoption:
    """Return what would change; open it with `any_database`."""
    mine = same_database.name_of(at.servers, at.engine)
    owner = same_database.owner(at.redis, at.keys)
    if owner is None or owner.id == mine.id:
        return Adoption(mine, owner, ())
    warnings = []
    if workers := living_workers(at.redis, at.keys):
        warnings.append(
            f"workers alive on the database before, {owner}: {workers}; end them first, or jobs "
            "that they run may be paid for twice"
        )
    open_jobs: Any = at.redis.scard(at.keys.present())
    if open_jobs:
        warnings.append(
            f"jobs in Redis that have not ended on the database before, {owner}: {open_jobs}; "
            "workers here will run them, also those that were paid for there"
        )
    return Adoption(mine, owner, tuple(warnings))


def adopt(at: Installation, mine: DatabaseName) -> None:
    """Make Redis belong to this database. Workers of the one before end at their next check."""
    at.redis.delete(at.keys.strays())  # first: a worker that ends over this notes itself there
    at.redis.set(at.keys.database(), mine.encode())
