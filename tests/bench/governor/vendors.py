"""The two vendors' ways of counting, as the bench sets them up at the simulated provider."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tests.bench.governor.prompts import CHARS_PER_TOKEN, mean_tokens

RPM = 6_000
BINDING = 0.8
"""The measure that binds lets through this share of what the requests a minute would."""

LATENCY_MS, LATENCY_SIGMA = 300, 0.5


@dataclass(frozen=True, slots=True)
class Vendor:
    """One pool with its limits. `limits`: by the catalog's names of the measures."""

    name: str
    model: str
    pool: str
    max_tokens: int
    limits: Mapping[str, int]
    off: tuple[float, ...] = (1.0,)

    @property
    def catalog(self) -> str:
        """The overlay that tells our workers of the limits."""
        lines = [f'[pools."{self.pool}"]', *(f"{k} = {v}" for k, v in self.limits.items())]
        return "\n".join([*lines, "burst_s = 1", ""])

    @property
    def simulator_flags(self) -> list[str]:
        """The provider enforces the same, with a burst of one second, and logs every call."""
        limits = [f"--{k.replace('_', '-')}={v}" for k, v in self.limits.items()]
        shape = ["--latency-sigma", str(LATENCY_SIGMA), "--burst-s", "1"]
        return [*limits, *shape, "--chars-per-token", str(CHARS_PER_TOKEN), "--json-log"]

    @property
    def per_s(self) -> float:
        """Jobs a second, at most, as the requests a minute let through."""
        return self.limits["rpm"] / 60

    def charged(self, measure: str, input_tokens: int, output_tokens: int) -> int:
        """What the provider counts of one accepted call."""
        match measure:
            case "rpm":
                return 1
            case "tpm":
                return input_tokens + self.max_tokens
            case "input_tpm":
                return input_tokens
            case _:
                return output_tokens

    def wrong_by(self, *off: float) -> Vendor:
        """The same with prompts whose true size is the estimate times one of `off`."""
        shown = " or ".join(f"{one:g}" for one in off)
        return replace(self, name=f"{self.name}, prompts {shown} times their estimate", off=off)


def openai(*, bound_by: str = "tpm") -> Vendor:
    """Requests and total tokens; what was held is not given back."""
    max_tokens = 40
    whole = RPM * (mean_tokens() + max_tokens)
    tpm = round(whole * (BINDING if bound_by == "tpm" else 1.5))
    return Vendor(
        f"OpenAI, {bound_by} binds", "gpt-4o-mini", "openai/gpt-4o-mini", max_tokens,
        {"rpm": RPM, "tpm": tpm},
    )  # fmt: skip


def anthropic(*, bound_by: str = "input_tpm") -> Vendor:
    """Input and output apart, settled by true usage.

    Where the input binds every answer ends at `max_tokens`; else lengths are lognormal, 57 tokens
    in the mean (`LENGTHS` of the simulator).
    """
    input_tpm, output_tpm = RPM * mean_tokens(), RPM * (12 if bound_by == "input_tpm" else 57)
    own = {"input_tpm": 1.5, "output_tpm": 1.5} | {bound_by: BINDING}
    return Vendor(
        f"Anthropic, {bound_by} binds", "claude-haiku-4-5", "anthropic/claude-haiku-4-5",
        12 if bound_by == "input_tpm" else 400,
        {"rpm": RPM, "input_tpm": round(input_tpm * own["input_tpm"]),
         "output_tpm": round(output_tpm * own["output_tpm"])},
    )  # fmt: skip
