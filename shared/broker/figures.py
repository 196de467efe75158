"""The figures of buckets, gates and breakers that scripts and Python must agree on.

`include.py` writes them into each script that uses them, as the Lua table `FIGURES`. What a figure
means for a bucket is decided in `lua/lib/bucket.lua` and `lua/lib/gate.lua`.
"""

from __future__ import annotations

from typing import Final

MEASURES: Final = ("rpm", "tpm", "input_tpm", "output_tpm", "rpd")
"""What a bucket limits, beside the calls at once (`concurrent`)."""

RAMPED: Final = ("tpm", "input_tpm")
"""The measures whose growth OpenAI limits."""

RATE: Final = 0.998
"""Share of a provider's rate that is used: its clock and ours may differ by the rest."""

BURST: Final = 0.5
"""Share of a provider's burst that is used: a request reaches the provider within the rest."""

OWN_BURST_S: Final = 60
"""Seconds of the rate that a caller's bucket holds, where its limits name no `burst_s`."""

RAMP_FROM: Final = 1_000_000
"""Tokens a minute from which OpenAI may refuse growth of over 50 % in 15 minutes."""

RAMP_GROWTH: Final = 1.4
"""Times the mean of the last 15 minutes: that grows by e^0.4 = 1.49 in 15 minutes."""

RAMP_MS: Final = 900_000
"""The ms in which the mean use of a ramped measure fades to 1/e."""

PACE_MS: Final = 1_800_000
"""The ms in which a pace grows from 0 to 1: a halved one is whole again after 15 minutes."""

CEILING_S: Final = 60
"""Seconds in which a lowered ceiling of calls at once grows back."""

DAY_MS: Final = 86_400_000

DEFAULT_OUTPUT: Final = 256
"""Output tokens that an answer is expected to take while nothing is learned of its kind."""

FAR_MS: Final = 4_000_000_000_000
"""A gate that is shut until after this moment waits for an operator."""

SLOT_MS: Final = 10_000
SLOTS: Final = 6
"""A breaker counts calls in this many slots of `SLOT_MS` each: the last minute."""

PIECES_MS: Final = 300_000
"""How long the streamed pieces of an answer stay after the end of its job."""

RESULT_OVERHEAD: Final = 256
"""Bytes that Redis takes for a result beside its record: keys, times to live and its list entry."""

ALL: Final[dict[str, float | tuple[str, ...]]] = {
    "MEASURES": MEASURES,
    "RATE": RATE,
    "BURST": BURST,
    "OWN_BURST_S": OWN_BURST_S,
    "RAMPED": RAMPED,
    "RAMP_FROM": RAMP_FROM,
    "RAMP_GROWTH": RAMP_GROWTH,
    "RAMP_MS": RAMP_MS,
    "PACE_MS": PACE_MS,
    "CEILING_S": CEILING_S,
    "DAY_MS": DAY_MS,
    "DEFAULT_OUTPUT": DEFAULT_OUTPUT,
    "SLOT_MS": SLOT_MS,
    "SLOTS": SLOTS,
    "PIECES_MS": PIECES_MS,
    "RESULT_OVERHEAD": RESULT_OVERHEAD,
}
"""What scripts may name."""
