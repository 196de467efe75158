"""What a provider hands back for one attempt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from headgate.shared.cost.rates import PLAIN, BillingTerms
from headgate.shared.job.request import Request
from headgate.shared.job.result import Reply

OnPiece = Callable[[str], None]
"""Takes the next piece of the text of an answer while it is made; must return at once."""

Measure = Literal["rpm", "rpd", "tpm", "input_tpm", "output_tpm"]


@dataclass(frozen=True, slots=True)
class Answer:
    """One model's reply with the headers that speak of limits and of the request's id.

    `headers` has lower-case names. `counted` is False where the vendor sent no usable usage: the
    zeros in `reply.usage` then mean unknown, and the ledger has to go by its estimate. `terms`:
    what the bill depends on beside it.
    """

    reply: Reply
    headers: Mapping[str, str]
    counted: bool = True
    terms: BillingTerms = PLAIN


@dataclass(frozen=True, slots=True)
class RateSeen:
    """One limit as its provider tells it in the headers of an answer or a refusal.

    `limit` and `remaining` are per minute (rpd: per day); `remaining` is rounded to `grain`.
    """

    measure: Measure
    limit: float
    remaining: float
    grain: float


class Provider(Protocol):
    """One provider's dialect with one key."""

    async def ask(
        self,
        request: Request,
        *,
        model: str,
        max_output_tokens: int,
        timeout_s: float,
        on_piece: OnPiece | None = None,
    ) -> Answer:
        """The answer; raises an AttemptError. `on_piece`: it is streamed, and takes its text."""

    async def close(self) -> None:
        """Its connections are closed."""
