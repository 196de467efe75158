"""Grants: the answer to a ticket. A job gets a hold on its limits, or the reason why it gets none.

The Lua scripts write a grant as text, with `|` between its words; `decode` reads it here alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

TOTALS = ("rpm", "tpm", "input_tpm", "output_tpm")

HELD_WORDS_0_1, UNHELD_WORDS_0_1 = 19, 12
"""How many words a hold and any other grant had in release 0.1, which had no budgets."""


@dataclass(frozen=True, slots=True)
class CallerTerms:
    """What each further ticket of the job repeats about its caller.

    `tier`: empty where the caller has none. `paid`: the caller's own limits were taken at submit.
    """

    tier: str = ""
    paid: bool = False


NO_TERMS = CallerTerms()


@dataclass(frozen=True, slots=True)
class Held:
    """The job holds what its attempt may take of each limit.

    `text`: the grant as the script wrote it; the script that settles the hold compares it. `key`
    names the provider's API key. `rule`: how the vendor counts, `o` for OpenAI, `a` for Anthropic.
    `settles`: the true usage replaces the tokens held. `granted_at_ms`: server time, Unix ms.
    `totals`: all that the pool has granted so far, by measure. `money`: what budgets hold for it,
    in the form of `lua/lib/money.lua`; empty where they hold nothing. `probe`: the mark of the one
    call that may go while the breaker of its model is open, else empty. `waits`: the job has waited
    for that breaker.
    """

    text: str
    model: str
    pool: str = ""
    key: str = ""
    rule: str = ""
    settles: bool = False
    input_tokens: int = 0
    output_tokens: int = 0
    granted_at_ms: int = 0
    totals: Mapping[str, int] = field(default_factory=dict)
    money: str = ""
    probe: str = ""
    waits: bool = False
    terms: CallerTerms = NO_TERMS

    @property
    def tokens(self) -> tuple[int, int]:
        """The tokens of input and output that it holds."""
        return self.input_tokens, self.output_tokens


@dataclass(frozen=True, slots=True)
class Cached:
    """The answer of `model` to this request is in the cache."""

    model: str
    terms: CallerTerms = NO_TERMS


@dataclass(frozen=True, slots=True)
class Shared:
    """The job followed an equal request to `model`, which has been answered or has failed."""

    model: str
    terms: CallerTerms = NO_TERMS


@dataclass(frozen=True, slots=True)
class Late:
    """The deadline passed while the job waited."""

    terms: CallerTerms = NO_TERMS


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The deadline would pass before `model` has capacity, and another model may answer."""

    model: str
    waits: bool = False
    terms: CallerTerms = NO_TERMS


@dataclass(frozen=True, slots=True)
class ModelDown:
    """The breakers of `model` are open on every key.

    `wait_ms` until one probe may go; None where the script does not say. `waits`: the job has
    waited for a breaker to close.
    """

    model: str
    wait_ms: int | None = None
    waits: bool = False
    terms: CallerTerms = NO_TERMS


@dataclass(frozen=True, slots=True)
class TooLarge:
    """The request takes more than a limit of `model` lets through in a minute."""

    model: str
    terms: CallerTerms = NO_TERMS


@dataclass(frozen=True, slots=True)
class OverBudget:
    """A budget lacks the money for an attempt at `model`; amounts in pico-USD.

    `scope` and `period` name the budget as its keys do: `tenant/acme`, `20261121` or `202611`.
    `upper_bound`: the most that the attempt can cost; None where no price is known.
    """

    model: str
    scope: str
    period: str
    limit: int
    hard_stop: int
    spent: int
    held: int
    upper_bound: int | None
    terms: CallerTerms = NO_TERMS


@dataclass(frozen=True, slots=True)
class Cheaper:
    """A budget has reached its soft share: `model` is to answer instead of the model wanted."""

    model: str
    terms: CallerTerms = NO_TERMS


@dataclass(frozen=True, slots=True)
class NoTicket:
    """The message came without a ticket, so nobody has asked the limits."""


Grant: TypeAlias = (
    Held
    | Cached
    | Shared
    | Late
    | Elsewhere
    | ModelDown
    | TooLarge
    | OverBudget
    | Cheaper
    | NoTicket
)


def decode(text: str) -> Grant:
    """Return the grant that a script wrote; raise ValueError for any other kind of grant.

    The form is `KIND|pool|model|key|rule|settles|input|output|tenant|user|tier|flags`. A hold goes
    on with server ms, the total of each of TOTALS, the money held, the attempt, and the buckets
    that count the call as running. `over budget` and `cheaper` go on with one word about money.
    """
    if not text:
        return NoTicket()
    words = text.split("|")
    if words[0] == "held":
        return _held(text, words)
    read = _UNHELD.get(words[0])
    if read is None:
        raise ValueError(f"the script wrote a grant of the unknown kind {words[0]!r}")
    return read(words, CallerTerms(words[10], "p" in words[11]))


def terms_of(grant: Grant) -> CallerTerms:
    """Return the terms of the ticket that the grant answers."""
    return NO_TERMS if isinstance(grant, NoTicket) else grant.terms


def _held(text: str, words: Sequence[str]) -> Held:
    flags = words[11]
    totals = zip(TOTALS, words[13:17], strict=True)
    return Held(
        text=text,
        pool=words[1],
        model=words[2],
        key=words[3],
        rule=words[4],
        settles=words[5] == "1",
        input_tokens=int(words[6]),
        output_tokens=int(words[7]),
        granted_at_ms=int(words[12]),
        totals={measure: int(total) for measure, total in totals if total},
        money=words[17] if len(words) > HELD_WORDS_0_1 else "",
        probe=flags.partition("b")[2],
        waits="w" in flags,
        terms=CallerTerms(words[10], "p" in flags),
    )


def _over_budget(words: Sequence[str], terms: CallerTerms) -> OverBudget:
    """Read `scope:period:limit:hard:spent:held:bound` from the word about money."""
    scope, period, *amounts, bound = words[UNHELD_WORDS_0_1].split(":")
    limit, hard_stop, spent, held = map(int, amounts)
    upper_bound = int(bound) if bound else None
    return OverBudget(
        words[2], scope, period, limit, hard_stop, spent, held, upper_bound, terms,
    )  # fmt: skip


_UNHELD: Mapping[str, Callable[[Sequence[str], CallerTerms], Grant]] = {
    "cached": lambda words, terms: Cached(words[2], terms),
    "shared": lambda words, terms: Shared(words[2], terms),
    "late": lambda _, terms: Late(terms),
    "elsewhere": lambda words, terms: Elsewhere(words[2], "w" in words[11], terms),
    "broken": lambda words, terms: ModelDown(words[2], None, "w" in words[11], terms),
    "too large": lambda words, terms: TooLarge(words[2], terms),
    "over budget": _over_budget,
    "cheaper": lambda words, terms: Cheaper(words[UNHELD_WORDS_0_1], terms),
}
