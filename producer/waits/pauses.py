"""Who paused a pool, a tenant or a queue, and when."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pause:
    """A pause by an operator, `user@machine`. Both are None where an older release paused."""

    since_ms: int | None = None
    by: str | None = None


def pause_of(note: str) -> Pause:
    """Read the note of a pause, `ms SP who`."""
    at_ms, _, who = note.partition(" ")
    return Pause(int(at_ms), who) if at_ms.isdigit() and who else Pause()
