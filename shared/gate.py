"""What a provider's refusal says of all that goes to the same pool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Gate:
    """Why a pool is shut or slowed, by the word of its provider.

    `limited`: a limit is used up. `slow`: the rate has grown too fast. `overloaded`: too many calls
    for them at once, none of our limits. `money`: nothing more until `until_ms` (Unix ms; None: no
    date is known). `flex`: no room in the flex tier.
    """

    kind: Literal["limited", "slow", "overloaded", "money", "flex"]
    until_ms: int | None = None
