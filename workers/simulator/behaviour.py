"""How the simulator is told to behave, and what it decides to do with one request."""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

from headgate.workers.simulator.billing import SimulatedPrice, SimulatedUsage
from headgate.workers.simulator.faults import Fault
from headgate.workers.simulator.limits import LimitTable
from headgate.workers.simulator.ramp import RampRule
from headgate.workers.simulator.rate_headers import Telling

# How an answer leaves: whole; not at all (connection closed); its first half and then closed;
# its first half and then silence.
End = Literal["whole", "cut", "half-cut", "half-silent"]

DEFAULT_OUTPUT_SIGMA = 0.6


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How the simulator behaves; all that the flags can say about answers."""

    latency_ms: float = 0.0
    latency_sigma: float = 0.0
    limits: LimitTable = field(default_factory=LimitTable)
    burst_s: float = 1.0
    count_refused: bool = False
    per_key: bool = False
    rates: tuple[tuple[Fault, float], ...] = ()
    key: str | None = None
    seed: int = 0
    chars_per_token: float = 4.0
    strict_models: tuple[str, ...] = ()
    prices: dict[str, SimulatedPrice] = field(default_factory=dict)
    output_tokens: float | None = None
    output_sigma: float = DEFAULT_OUTPUT_SIGMA
    headers: Telling = "true"
    ramp: RampRule | None = None


@dataclass(slots=True)
class Bill:
    """What an answer will cost once it is finished."""

    model: str
    digest: bytes
    usage: SimulatedUsage
    usd: Decimal | None


@dataclass(slots=True)
class Act:
    """What the server does: wait, then send `body`, or `events` one after the other."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    events: list[bytes] | None = None
    delay_s: float = 0.0
    end: End = "whole"
    bill: Bill | None = None
    model: str = ""
    fault: str | None = None
    refusal: str | None = None
