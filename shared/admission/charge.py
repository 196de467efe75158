"""What an attempt holds of a provider's limits, by the provider's own rule. Pure.

OpenAI counts a request on arrival, with its estimated prompt and its max_tokens for each of its `n`
answers, and gives nothing back. Anthropic counts input on arrival and output as it is produced, and
ignores max_tokens. Both rules are those of the vendors' rate-limit guides; that of `n` is in
OpenAI's cookbook ("API request parallel processor").
"""

from __future__ import annotations

from dataclasses import dataclass

from headgate.shared.cost.tokens import answers
from headgate.shared.job.request import Request


@dataclass(frozen=True, slots=True)
class Charge:
    """The tokens to hold; with `settles` the true usage replaces them afterwards.

    `output_tokens` is then a ceiling: the estimate that is held is at most this.
    """

    input_tokens: int
    output_tokens: int
    settles: bool


def charge(dialect: str, request: Request, *, input_tokens: int, ceiling: int) -> Charge:
    """Return what to hold for a request of about `input_tokens`; `ceiling` is of one answer."""
    if request.answer_kind != "text":
        return Charge(input_tokens, 0, settles=False)
    asked = request.asked_tokens
    if dialect == "anthropic":
        return Charge(input_tokens, ceiling, settles=True)
    each = min(ceiling, asked) if asked else 0
    return Charge(input_tokens, each * answers(request.params), settles=False)
