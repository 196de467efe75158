"""What an attempt holds of a provider's limits, by the provider's own way of counting. Pure.

OpenAI charges tokens on arrival: the prompt as estimated and max_tokens as asked, and gives nothing
back. Anthropic counts input on arrival and output as it is produced; max_tokens does not matter
(reference: the vendors' rate-limit guides).
"""

from __future__ import annotations

from dataclasses import dataclass

from shared.envelope import Request

USUAL_OUTPUT_TOKENS = 256
"""Output held for an attempt whose answer is not known yet, where the vendor counts what comes."""


@dataclass(frozen=True, slots=True)
class Charge:
    """Tokens to hold; `settles`: whether the true usage replaces them afterwards."""

    input_tokens: int
    output_tokens: int
    settles: bool


def charge(dialect: str, request: Request, *, input_tokens: int, ceiling: int) -> Charge:
    """What to hold for a request of about `input_tokens` that may answer up to `ceiling`."""
    if request.embeds:
        return Charge(input_tokens, 0, settles=False)
    asked = request.params.get("max_completion_tokens") or request.params.get("max_tokens")
    if dialect == "anthropic":
        return Charge(input_tokens, min(ceiling, USUAL_OUTPUT_TOKENS), settles=True)
    return Charge(input_tokens, min(ceiling, asked) if asked else 0, settles=False)
