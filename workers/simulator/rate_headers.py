"""Rate-limit headers that are true, missing, malformed, or say that all is left."""

from typing import Literal, get_args

from headgate.workers.simulator.anthropic.replies import moment

Telling = Literal["true", "none", "malformed", "full"]
TELLINGS: tuple[str, ...] = get_args(Telling)
NONSENSE = ("", "NaN", "-1", "soon", "1e999", "0", "9" * 30, "1,000", "null", "12:00", "-5s", "inf")


def told(headers: dict[str, str], telling: Telling, turn: int, epoch_s: float) -> dict[str, str]:
    """The true rate-limit headers as `telling` has them; `turn` picks the nonsense."""
    match telling:
        case "true":
            return headers
        case "none":
            return {}
        case "malformed":
            return {
                name: NONSENSE[(turn + place) % len(NONSENSE)] for place, name in enumerate(headers)
            }
        case "full":
            return {name: _full(headers, name, epoch_s) for name in headers}


def _full(headers: dict[str, str], name: str, epoch_s: float) -> str:
    if "remaining" in name:
        return headers[name.replace("remaining", "limit")]
    if "reset" in name:
        return "0s" if name.startswith("x-") else moment(int(epoch_s))
    return headers[name]
