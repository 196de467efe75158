"""Changes rate-limit headers: true, missing, malformed, or with nothing used.

Those of the style `bucket` are made where the headers are: what remains is then the bucket's own.
"""

from typing import Literal, get_args

from headgate.workers.simulator.anthropic.replies import moment

HeaderStyle = Literal["true", "bucket", "none", "malformed", "full"]
HEADER_STYLES: tuple[str, ...] = get_args(HeaderStyle)
NONSENSE = ("", "NaN", "-1", "soon", "1e999", "0", "9" * 30, "1,000", "null", "12:00", "-5s", "inf")


def styled(
    headers: dict[str, str], style: HeaderStyle, turn: int, epoch_s: float
) -> dict[str, str]:
    """Return the rate-limit headers in this style. `turn` chooses the malformed values."""
    match style:
        case "true" | "bucket":
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
