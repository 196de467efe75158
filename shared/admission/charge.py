"""What an attempt holds of a provider's limits, by the provider's own way of counting. Pure.

OpenAI charges tokens on arrival: the prompt as estimated and max_tokens as asked, and gives nothing
back. Anthropic counts input on arrival and output as it is produced; max_tokens does not matter
(reference: the vendors' rate-limit guides).
"""

from __future__ import annotations

from dataclasses import dataclass

from headgate.shared.job.request import Request


@dataclass(frozen=True, slots=True)
class Charge:
    """Tokens to hold; `settles`: whether the true usage replaces them afterwards.

    Where it does, `output_tokens` is a ceiling: what is held up to it is learned.
    """

    input_tokens: int
    output_tokens: int
    settles: bool


def charge(dialect: str, request: Request, *, input_tokens: int, ceiling: int) -> Charge:
    """What to hold for a request of about `input_tokens` that may answer up to `ceiling`."""
    if request.embeds:
        return Charge(input_tokens, 0, settles=False)
    asked = request.params.get("max_completion_tokens") or request.params.get("max_tokens")
    if dialect == "anthropic":
        return Charge(input_tokens, ceiling, settles=True)
    return Charge(input_tokens, min(ceiling, asked) if asked else 0, settles=False)
