"""How the simulator is to behave, and what it decides to do with one request."""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

from headgate.workers.simulator.billing import SimulatedPrice, SimulatedUsage
from headgate.workers.simulator.faults import Fault
from headgate.workers.simulator.limits import LimitTable
from headgate.workers.simulator.ramp import RampRule
from headgate.workers.simulator.rate_headers import HeaderStyle

# How an answer is sent: whole; not at all (the connection is closed); its first half before the
# connection is closed; its first half and then nothing more.
End = Literal["whole", "cut", "half-cut", "half-silent"]

DEFAULT_OUTPUT_SIGMA = 0.6


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How the simulator behaves: everything that the flags say about answers."""

    latency_ms: float = 0.0
    latency_sigma: float = 0.0
    limits: LimitTable = field(default_factory=LimitTable)
    burst_s: float = 1.0
    fixed_windows: bool = False
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
    headers: HeaderStyle = "true"
    ramp: RampRule | None = None


@dataclass(slots=True)
class Bill:
    """What an answer costs once it is finished. `usd` is None if no price is known."""

    model: str
    digest: bytes
    usage: SimulatedUsage
    usd: Decimal | None


@dataclass(slots=True)
class Act:
    """What the server does: wait, then send `body`, or send `events` one after the other.

    `flood`: what is sent in the place of the text, see floods.py.
    """

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
    flood: Fault | None = None
