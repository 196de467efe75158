"""The signs of living workers: what each of them serves, renewed every second.

A worker of the release before writes only how many jobs it holds, and is in no list of workers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from headgate.shared.broker.keys import Keys
from headgate.shared.broker.script import Command, compose, text_of

ALIVE_MS = 5000
"""How long a worker counts as alive after its last sign."""


@dataclass(frozen=True, slots=True)
class LivingWorker:
    """A worker that lives.

    `held`: jobs whose lease it holds. `queues`: those that it fetches from now. `providers`: those
    of which it has a key. Both are None where its release does not say.
    """

    held: int = 0
    queues: frozenset[str] | None = None
    providers: frozenset[str] | None = None

    def serves(self, queue: str) -> bool:
        """Return whether it fetches from this queue, as far as is known."""
        return self.queues is None or queue in self.queues

    def has_key_of(self, provider: str) -> bool:
        """Return whether it has a key of this provider, as far as is known."""
        return self.providers is None or provider in self.providers

    @classmethod
    def decode(cls, text: str) -> LivingWorker:
        """Read the text of a sign."""
        held, *rest = text.split("\n")
        queues, providers = (frozenset(one.split()) for one in (*rest, "", "")[:2])
        return cls(
            int(held) if held.isdigit() else 0,
            queues if rest else None,
            providers if len(rest) > 1 else None,
        )


def sign_text(held: int, queues: Iterable[str], providers: Iterable[str] | None) -> str:
    """Return the text of a worker's sign; `providers` None: not known yet."""
    text = f"{held}\n{' '.join(queues)}"
    return text if providers is None else f"{text}\n{' '.join(providers)}"


def sign(keys: Keys, worker: str, text: str) -> Command[int]:
    """Say that this worker lives, and what it serves, also in a Redis that is full."""
    return compose("sign", (), (keys.prefix, worker, text, ALIVE_MS), int)


def sign_off(keys: Keys, worker: str) -> tuple[Sequence[str], ...]:
    """Return the commands by which a worker that ends removes its sign."""
    return ("DEL", keys.worker(worker)), ("ZREM", keys.workers(), worker)


def workers_of(texts: Iterable[Any]) -> list[LivingWorker]:
    """Read the signs of a reply."""
    return [LivingWorker.decode(text_of(text)) for text in texts]
