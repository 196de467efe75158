"""Lets in or refuses, at submit, the requests of callers who would rather not wait."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from headgate.shared.keys import Keys
from headgate.shared.scripts import Command, Word, compose, text_of
from headgate.shared.ticket import Ticket, quoted, unquoted


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: its ticket, and the lockout of its tier. `lockout_s`: 0 for none."""

    ticket: Ticket
    lockout_s: float = 0
    lockout_after: int = 3


@dataclass(frozen=True, slots=True)
class Answer:
    """`wait_ms` until the limit lets a request through that was not let in.

    `who` and `measure`: which limit, and `limit` its size. `lockouts`: how many the user had within
    a day, where this refusal has begun one.
    """

    way: Literal["let in", "refused", "too large", "locked out"]
    wait_ms: int = 0
    who: str = ""
    measure: str = ""
    limit: int = 0
    lockouts: int = 0


LET_IN = Answer("let in")


Mode = Literal["each", "together", "back"]


def admit(
    keys: Keys, *, call: str, asked: Sequence[Asked], mode: Mode
) -> Command[list[Answer] | None]:
    """What is let in has been taken from the buckets of its user and tier; None: no limits known.

    `call` must be another one in each call; give some hundreds at once. `together`: all or none;
    the answers then end with the first that is not let in. `back`: what was let in before is not.
    """

    def read(reply: list[Any] | None) -> list[Answer] | None:
        if reply is None:
            return None
        return [_answer(words, one) for words, one in zip(reply, asked, strict=False)]

    args: list[Word] = [keys.prefix, call, mode]
    for one in asked:
        args += [one.ticket.encode(), round(one.lockout_s * 1000), one.lockout_after]
    return compose("admit", (), args, read)


def _answer(words: list[Any], asked: Asked) -> Answer:
    match words:
        case [0]:
            return LET_IN
        case [3, wait_ms]:
            return Answer("locked out", wait_ms)
        case [kind, wait_ms, bucket, measure, limit, *lockouts]:
            who = _who(text_of(bucket), asked.ticket)
            way: Literal["too large", "refused"] = "too large" if kind == 2 else "refused"
            return Answer(way, wait_ms, who, text_of(measure), limit, *lockouts)
    raise ValueError("the admit script answers otherwise than is known here")


def _who(bucket: str, ticket: Ticket) -> str:
    """Whose limit a bucket is, in words."""
    kind, _, name = bucket.removesuffix("#").partition("/")
    if kind == "tier":
        caller = f"{ticket.tier}/{quoted(ticket.tenant)}/{quoted(ticket.user)}"
        of_model = f" for {ticket.model}" if name != caller else ""
        return f"tier {ticket.tier}{of_model}"
    return f"{kind} {unquoted(name.rpartition('/')[2])}"
