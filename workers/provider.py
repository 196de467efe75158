"""What a provider is, and what it returns for one attempt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from headgate.shared.cost.rates import PLAIN, BillingTerms
from headgate.shared.job.request import Dialect, Request
from headgate.shared.job.result import Reply, Usage

OnPiece = Callable[[str], None]
"""Takes the next piece of the text of an answer while it is made; must return at once."""


@dataclass(frozen=True, slots=True)
class MadePart:
    """What was made of an answer that broke off.

    `usage`: as far as the vendor has sent it. `text`: all that counts as output, also reasoning and
    arguments of tools.
    """

    usage: Usage
    text: str


class AnswerSink(Protocol):
    """Takes the pieces of an answer while it is made. Its methods return at once."""

    @property
    def wants_events(self) -> bool:
        """True if it takes the vendor's events, too."""

    @property
    def size(self) -> int:
        """Return about how many bytes of memory it holds."""

    def text(self, text: str) -> None:
        """Take the next piece of the text."""

    def event(self, event: bytes, *, dialect: Dialect, has_content: bool) -> None:
        """Take the vendor's next event as JSON in one line.

        `has_content`: it, or an event before it, has a part of the answer. Those before it are the
        head of the stream, which any other answer may begin with, too.
        """

    def broke_off(self, made: MadePart) -> None:
        """Note what was made of the answer: it does not come to its end."""


class Unread:
    """Takes the pieces of an answer whose caller wants it whole."""

    wants_events = False
    size = 0

    def text(self, text: str) -> None:
        """Drop the text."""

    def event(self, event: bytes, *, dialect: Dialect, has_content: bool) -> None:
        """Drop the event."""

    def broke_off(self, made: MadePart) -> None:
        """Drop it."""


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
        sink: AnswerSink | None = None,
        room: Room | None = None,
    ) -> Answer:
        """Return the answer, or raise an AttemptError. With `sink` the answer is streamed.

        `timeout_s` is the time limit for the whole call, and `idle_s` for the silence of the
        provider between two bytes. Waiting for `room` takes none of both.
        """

    async def close(self) -> None:
        """Close its connections."""
