"""What room the servers have left: the memory of Redis, its file, and the disks of this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from redis.exceptions import ResponseError
from sqlalchemy.engine import make_url

from headgate.producer.installation import Installation
from headgate.shared.broker import memory
from headgate.shared.broker.memory import MemoryUse
from headgate.shared.broker.queues import all_queues
from headgate.shared.broker.script import run

FULL_DISK_SHARE = 0.95
"""From this share of a disk on it counts as full."""

GB = 1e9


@dataclass(frozen=True, slots=True)
class DiskUse:
    """How full a disk is that Headgate writes to. `what` is on it: `the home`, `the database`."""

    what: str
    path: str
    share: float
    free_bytes: int

    @property
    def is_full(self) -> bool:
        """Whether it counts as full."""
        return self.share >= FULL_DISK_SHARE

    def __str__(self) -> str:
        return f"{_percent(self.share)} full ({self.free_bytes / GB:,.1f} GB left)"


@dataclass(frozen=True, slots=True)
class Space:
    """The room that the servers have left.

    `memory` is that of Redis. `unwritten`: why Redis cannot write its file, or None. `disks` are
    those of the home and of a SQLite file; the disks of other servers cannot be seen from here.
    """

    memory: MemoryUse
    disks: list[DiskUse] = field(default_factory=list)
    unwritten: str | None = None

    @property
    def faults(self) -> list[str]:
        """What is full or nearly so, one text each, with a remedy."""
        found = []
        if self.memory.is_full:
            use = self.memory
            found.append(f"Redis is nearly full, at {use}: {use.takers}; {memory.REMEDY}")
        if self.unwritten is not None:
            remedy = "its disk may be full: free some space there"
            found.append(f"Redis cannot write its file ({self.unwritten}); {remedy}")
        found += [
            f"the disk of {disk.what} ({disk.path}) is {disk}; free some space"
            for disk in self.disks
            if disk.is_full
        ]
        return found

    def as_json(self) -> dict[str, Any]:
        """Return the parts of `headgate health --json`."""
        use = self.memory
        return {
            "memory": {
                "used_bytes": use.used, "limit_bytes": use.limit, "limit_is_set": use.is_set,
                "share": round(use.share, 4), "takes": use.takes,
            },
            "disks": [asdict(disk) for disk in self.disks],
            "unwritten": self.unwritten,
        }  # fmt: skip


def space_of(at: Installation) -> Space:
    """Return the room that the servers of the installation have left. Raise RedisError."""
    facts: Any = at.redis.info()
    use = memory.use_of(facts)
    try:
        queues = all_queues(at.catalog.classes)
        use = replace(use, takes=run(at.redis, memory.takers(at.keys, queues)))
    except ResponseError:
        pass  # a user without the right to MEMORY: what takes the room is not known
    return Space(use, disks(_places(at)), _unwritten(facts))


def disks(
    places: Iterable[tuple[str, Path]], ask: Callable[[Path], os.statvfs_result] = os.statvfs
) -> list[DiskUse]:
    """Return each disk of these places once. `ask` returns the figures of a path."""
    found: dict[int, DiskUse] = {}
    for what, path in places:
        try:
            device, figures = path.stat().st_dev, ask(path)
        except OSError:
            continue
        if (before := found.get(device)) is not None:
            found[device] = replace(before, what=f"{before.what} and {what}")
            continue
        # As `df` counts: what is kept for root is not there.
        used = figures.f_blocks - figures.f_bfree
        whole = used + figures.f_bavail
        share = used / whole if whole else 0.0
        found[device] = DiskUse(what, str(path), share, figures.f_bavail * figures.f_frsize)
    return list(found.values())


def _places(at: Installation) -> list[tuple[str, Path]]:
    """Return the folders that servers of this machine write to."""
    places = []
    if at.servers.is_embedded:
        places.append(("the home", at.settings.home_path))
    if at.servers.database_url.startswith("sqlite"):
        file = make_url(at.servers.database_url).database
        places.append(("the database", Path(file or "").absolute().parent))
    return places


def _unwritten(facts: dict[str, Any]) -> str | None:
    for name in ("aof_last_write_status", "rdb_last_bgsave_status", "aof_last_bgrewrite_status"):
        if facts.get(name, "ok") != "ok":
            return f"{name} is {facts[name]}"
    return None


def _percent(share: float) -> str:
    return f"{share:.0%}".replace("%", " %")
