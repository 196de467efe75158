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

SHARED: Final = 0.99
"""A limit below so much of the provider's own is a share of it, which others use, too."""

OWN_BURST_S: Final = 60
"""Seconds of the rate that a caller's bucket holds, where its limits name no `burst_s`."""

TOLD_MS: Final = 60_000
"""Headers count for so long, and for as long as the bucket that they tell of takes to fill."""

USUAL_WINDOWS_MS: Final = (1_000, 5_000, 10_000, 15_000, 30_000, 60_000)
"""A provider's fixed window is taken to be of such a length, where one is near."""

SURE: Final = 3
"""A provider counts in fixed windows if they ended so often when they were expected to."""

WINDOW_GUARD_MS: Final = 20
"""The ms after the expected end of a provider's fixed window at which the next one is used."""

WAVE_MS: Final = 100
WAVE_GROWTH: Final = 1.75
WAVE_USED: Final = 0.7
"""A burst goes in waves so many ms apart, longer than a refusal takes. Each may be larger by this
factor than the one before, once so much of that was used."""

STEP_FADES: Final = 0.9
"""Of what was granted within a second, the share that counts a second later as on its way."""

SHARE_MS: Final = 60_000_000
"""The ms in which the share of a rate that is used grows from 0 to 1: by 0.1 % in a minute."""

RAMP_GROWTH: Final = 1.4
"""Times the mean of the last 15 minutes: that grows by e^0.4 = 1.49 in 15 minutes."""

RAMP_MS: Final = 900_000
"""The ms in which the mean use of a ramped measure fades to 1/e."""

PACE_GROWTH: Final = 1.5
PACE_MS: Final = 900_000
"""A pace that was lowered grows by this factor in so many ms: the vendors' rule of growth."""

LEAST_PACE: Final = 0.01
"""The least pace, however often it is lowered."""

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

STEP_MS: Final = 100_000
"""A job that Celery sent with a priority ranks as if it had come so many ms later for each step
from 0 (most urgent) to 9."""

ALL: Final[dict[str, float | tuple[str, ...] | tuple[int, ...]]] = {
    "MEASURES": MEASURES,
    "RATE": RATE,
    "BURST": BURST,
    "SHARED": SHARED,
    "OWN_BURST_S": OWN_BURST_S,
    "RAMPED": RAMPED,
    "TOLD_MS": TOLD_MS,
    "USUAL_WINDOWS_MS": USUAL_WINDOWS_MS,
    "SURE": SURE,
    "WINDOW_GUARD_MS": WINDOW_GUARD_MS,
    "WAVE_MS": WAVE_MS,
    "WAVE_GROWTH": WAVE_GROWTH,
    "WAVE_USED": WAVE_USED,
    "STEP_FADES": STEP_FADES,
    "SHARE_MS": SHARE_MS,
    "RAMP_GROWTH": RAMP_GROWTH,
    "RAMP_MS": RAMP_MS,
    "PACE_MS": PACE_MS,
    "PACE_GROWTH": PACE_GROWTH,
    "LEAST_PACE": LEAST_PACE,
    "CEILING_S": CEILING_S,
    "DAY_MS": DAY_MS,
    "DEFAULT_OUTPUT": DEFAULT_OUTPUT,
    "SLOT_MS": SLOT_MS,
    "SLOTS": SLOTS,
    "PIECES_MS": PIECES_MS,
    "RESULT_OVERHEAD": RESULT_OVERHEAD,
    "STEP_MS": STEP_MS,
}
"""What scripts may name."""
