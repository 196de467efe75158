"""What a job that has not ended waits for: in one form for results, lists, errors and people."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

NOTHING = "nothing"
"""The first word of `help` where a job goes on by itself."""

WaitKind = Literal[
    "limit", "budget", "gate", "model_down", "paused", "no_worker", "no_key", "vendor_batch",
    "equal_job", "due", "turn",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class WaitingFor:
    """What a job waits for. Of several reasons it is one that would keep the job by itself."""

    kind: WaitKind
    """`gate`: the provider takes no calls now. `model_down`: its circuit breaker is open. `due`: a
    retry or an ETA. `turn`: others are ahead, or all workers are busy. Later releases may add
    kinds."""

    name: str
    """What it waits for, as commands take it: a scope such as `pool/openai/gpt-4o` or
    `user/acme/u1`, a model, a queue, a provider, or the id of the equal job. For `due` it is
    `retry` or `eta`."""

    why: str = ""
    """The reason or the amount in a few words, without a prompt or a key."""

    since: str | None = None
    """When the wait began, as far as that is known, as RFC 3339 in UTC."""

    until: str | None = None
    """When the job may start, an estimate; null if nobody knows."""

    help: str = ""
    """What would help."""

    def as_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return asdict(self)

    def in_words(self, now_ms: int) -> str:
        """Return one sentence for people, such as `waiting for the limit of ... since 12 s`."""
        why = f" ({self.why})" if self.why else ""
        what = _WHAT.get(self.kind, self.kind).format(name=self.name.removeprefix("pool/"), why=why)
        text = f"waiting for {what}"
        if (since := ms_of(self.since)) is not None and now_ms - since >= 1000:
            text += f" since {duration((now_ms - since) / 1000)}"
        if (until := ms_of(self.until)) is not None and until - now_ms >= 1000:
            text += f", about {duration((until - now_ms) / 1000)} more"
        return text

    def with_help(self, now_ms: int) -> str:
        """Return the sentence of `in_words`, and what would help, if anything would."""
        helps = self.help and not self.help.startswith(NOTHING)
        return f"{self.in_words(now_ms)}; {self.help}" if helps else self.in_words(now_ms)


_WHAT = {
    "limit": "the limit of {name}{why}",
    "budget": "the budget of {name}{why}",
    "gate": "{name}, whose provider takes no calls now{why}",
    "model_down": "{name}, which is down{why}",
    "paused": "{name}, which is paused{why}",
    "no_worker": "a worker that serves {name}{why}",
    "no_key": "a key of {name}{why}",
    "vendor_batch": "the batch {name}{why}",
    "equal_job": "the answer to an equal job, {name}",
    "due": "its {name}{why}",
    "turn": "its turn in {name}{why}",
}


def ms_of(moment: str | None) -> int | None:
    """Return an RFC 3339 moment as Unix ms; None for None."""
    if moment is None:
        return None
    return round(datetime.fromisoformat(moment).timestamp() * 1000)


def duration(seconds: float) -> str:
    """Return a duration in at most two units: `12 s`, `5 min`, `3 h 18 min`, `2 days 3 h`."""
    whole = int(seconds + 0.5)
    if whole < 120:
        return f"{whole} s"
    minutes = (whole + 30) // 60
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} days {hours} h" if hours else f"{days} days"
