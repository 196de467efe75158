"""What a provider is, and what it returns for one attempt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from headgate.shared.cost.rates import PLAIN, BillingTerms
from headgate.shared.job.request import Request
from headgate.shared.job.result import Reply

OnPiece = Callable[[str], None]
"""Takes the next piece of the text of an answer while it is made; must return at once."""


def unread(_text: str) -> None:
    """Take a piece of an answer whose caller wants it whole."""


class Room(Protocol):
    """The room that an answer takes in its worker."""

    def hold(self, size: int) -> bool:
        """Count that the answer takes `size` bytes now; return False if its call has to wait."""

    async def wait(self) -> None:
        """Wait until there is room for more."""


Measure = Literal["rpm", "rpd", "tpm", "input_tpm", "output_tpm"]


@dataclass(frozen=True, slots=True)
class Answer:
    """One model's reply, and the headers about limits and the request's id.

    `headers` has lower-case names. `counted` is False where the vendor sent no usable usage: the
    zeros in `reply.usage` then mean unknown, and the ledger uses its estimate. `terms`: what the
    bill depends on beside the usage.
    """

    reply: Reply
    headers: Mapping[str, str]
    counted: bool = True
    terms: BillingTerms = PLAIN


@dataclass(frozen=True, slots=True)
class Reset:
    """The seconds until a limit is whole again, exact to `grain_s`.

    They count from the moment at which the provider accepted the request; `of_answer`: from the
    moment of the answer.
    """

    after_s: float
    grain_s: float
    of_answer: bool = False


@dataclass(frozen=True, slots=True)
class RateSeen:
    """One limit as the headers of an answer or a refusal report it.

    `limit` is per minute (rpd: per day); `remaining` is rounded to `grain`. `total`: what our
    bucket had granted in all when the request was granted; None: not known.
    """

    measure: Measure
    limit: float
    remaining: float
    grain: float
    total: int | None = None
    reset: Reset | None = None


class Provider(Protocol):
    """One provider's dialect with one key."""

    async def ask(
        self,
        request: Request,
        *,
        model: str,
        max_output_tokens: int,
        timeout_s: float,
        idle_s: float | None = None,
        on_piece: OnPiece | None = None,
        room: Room | None = None,
    ) -> Answer:
        """Return the answer, or raise an AttemptError. With `on_piece` the answer is streamed.

        `timeout_s` is the time limit for the whole call, and `idle_s` for the silence of the
        provider between two bytes. Waiting for `room` takes none of both.
        """

    async def close(self) -> None:
        """Close its connections."""
