"""A grant: what a job holds of its limits, or why it holds nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

HOLD_WORDS, UNHELD_WORDS = 19, 12
"""Words of a hold in release 0.1, which had no money in it; of a grant that holds nothing."""

TOTALS = ("rpm", "tpm", "input_tpm", "output_tpm")

Way = Literal[
    "held",
    "cached",
    "shared",
    "late",
    "elsewhere",
    "broken",
    "too large",
    "over budget",
    "cheaper",
    "none",
]


@dataclass(frozen=True, slots=True)
class Grant:
    """What the governor gave a job on its way: a hold in all its buckets, or the reason for none.

    `way`: `held`; `cached` (its answer is on record), `shared` (so is that of the equal request it
    had joined), `late` (past its deadline), `elsewhere` (its deadline would pass in line, and
    another model may answer), `broken` (its model is down, and another may answer), `too large`
    (over what its bucket gets in a minute), `over budget` (its money is spent), `cheaper` (a budget
    has another model asked for it), `none` (its message has no ticket). `text`: as the script wrote
    it. `money`: what it holds of budgets, or empty; of those two the budget, and the model.
    `probe`: the mark of the one call that may go while the breaker of its model is open. `waits`:
    the job has waited for that breaker.
    """

    way: Way
    text: str = ""
    pool: str = ""
    key: str = ""
    model: str = ""
    rule: str = ""
    settles: bool = False
    input_tokens: int = 0
    output_tokens: int = 0
    tier: str = ""
    paid: bool = False
    granted_at_ms: int = 0
    totals: Mapping[str, int] = field(default_factory=dict)
    money: str = ""
    probe: str = ""
    waits: bool = False

    @property
    def tokens(self) -> tuple[int, int]:
        """Those of input and output that it holds."""
        return self.input_tokens, self.output_tokens

    @classmethod
    def decode(cls, text: str) -> Grant:
        """From the script: `WAY|pool|model|key|rule|settles|input|output|tenant|user|tier|paid`.

        Of a hold there follow server ms, what has been granted in all of each of TOTALS, the
        money held, the attempt, and which buckets count the call as running.
        """
        if not text:
            return NO_GRANT
        words = text.split("|")
        at_ms, totals, money = 0, {}, ""
        if words[0] == "held":
            at_ms = int(words[12])
            told = zip(TOTALS, words[13:17], strict=True)
            totals = {measure: int(total) for measure, total in told if total}
            money = words[17] if len(words) > HOLD_WORDS else ""
        elif len(words) > UNHELD_WORDS:
            money = words[UNHELD_WORDS]
        return cls(
            way=words[0],  # type: ignore[arg-type]  # the script's own word
            text=text,
            pool=words[1],
            model=words[2],
            key=words[3],
            rule=words[4],
            settles=words[5] == "1",
            input_tokens=int(words[6]),
            output_tokens=int(words[7]),
            tier=words[10],
            paid="p" in words[11],
            granted_at_ms=at_ms,
            totals=totals,
            money=money,
            probe=words[11].partition("b")[2],
            waits="w" in words[11],
        )


NO_GRANT = Grant("none")
