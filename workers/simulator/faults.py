"""Faults on request: by rate, by a directive in the prompt, or by rules posted at run time.

One grammar for all three, the parts in any order:
`[once:|times=N:]KIND[:retry-after=S][:retry-after-ms=N][:ms=N][:until=DAY][:tokens=N][:mb=N]
[:model=M]`.
`retry-after` is a number of seconds (also below 0), or `date+60`, `date-60` or `epoch+60`: an HTTP
date or a Unix time, so many seconds from now.
"""

import re
from dataclasses import dataclass
from datetime import date
from email.utils import formatdate
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

# quota: no money left, until a day (2026-12-01) if one is given and the vendor names it.
# slow_down: the rate grew too fast. flex: that tier is full; by rate it meets only requests for
# that tier. context: the prompt exceeds the window. filter: answered, but without the content.
# filter-400: refused by the filter. slow: answered late. stall: headers and a part, then nothing.
# cut: connection closed before the headers; cut-body: in the middle of the body. garbage: a body
# that is not JSON. empty: an answer without choices. stream-error: an error event in a stream.
# usage: the answer reports `tokens` of input, whatever it took; it is billed for what it took.
# large: an answer of `mb`; a status with `mb` has an error body of that size. bomb: such an answer,
# gzipped. endless: text without end, as fast as it is taken; endless-line: the same in one event of
# a stream. drip: a letter every `ms`, without end.
Kind = Literal[
    "status",
    "quota",
    "slow_down",
    "flex",
    "context",
    "filter",
    "filter-400",
    "slow",
    "stall",
    "cut",
    "cut-body",
    "garbage",
    "empty",
    "stream-error",
    "usage",
    "large",
    "endless",
    "endless-line",
    "bomb",
    "drip",
]
FLOODS = frozenset({"large", "endless", "endless-line", "bomb", "drip"})
KINDS: tuple[str, ...] = get_args(Kind)
ALIASES = {
    "insufficient_quota": "quota",
    "context_length_exceeded": "context",
    "content_filter": "filter",
    "malformed": "garbage",
}
STATUSES = frozenset(
    {400, 401, 402, 403, 404, 408, 409, 413, 422, 429, 500, 502, 503, 504, 520, 529}
)
DEFAULT_SLOW_MS = 5_000
DEFAULT_DRIP_MS = 1_000
DEFAULT_MB = 100
_SECONDS = re.compile(r"-?[0-9]+(\.[0-9]+)?|(date|epoch)[+-][0-9]{1,10}")
_DIRECTIVE = re.compile(r"\[\[fault:([^\[\]]*)\]\]")


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with one request. `times` None: every time."""

    kind: Kind
    status: int = 0
    retry_after_s: str | None = None
    retry_after_ms: str | None = None
    delay_ms: int = 0
    until: str | None = None
    tokens: int = 0
    mb: int = 0
    times: int | None = None
    model: str | None = None

    @property
    def label(self) -> str:
        """The fault's name in the figures: the status, or the kind."""
        return str(self.status) if self.kind == "status" else self.kind


@dataclass(slots=True)
class FaultRule:
    """A posted rule: requests whose text holds `match` get `fault`, `left` more times."""

    match: str
    model: str | None
    fault: Fault
    left: int | None


def parse_fault(spec: str) -> Fault:
    """Parse a fault. Raises ValueError that says what is wrong with `spec`."""
    parts: dict[str, Any] = {}
    for segment in spec.split(":"):
        name, _, amount = segment.strip().partition("=")
        option = _option(name, amount, spec)
        if option is None:
            if "kind" in parts:
                raise ValueError(f"fault {spec!r}: {name!r} is not an option")
            option = _kind(name)
            if amount:
                option["delay_ms"] = _whole(name, amount)
        parts.update(option)
    if "kind" not in parts:
        raise ValueError(f"fault {spec!r} names no kind; known are {_known()}")
    match parts["kind"]:
        case "slow":
            parts.setdefault("delay_ms", DEFAULT_SLOW_MS)
        case "drip":
            parts.setdefault("delay_ms", DEFAULT_DRIP_MS)
        case "large" | "bomb":
            parts.setdefault("mb", DEFAULT_MB)
        case "status":
            pass
        case kind if "mb" in parts:
            raise ValueError(f"fault {spec!r}: mb is no option of {kind}")
    return Fault(**parts)


def _option(name: str, amount: str, spec: str) -> dict[str, Any] | None:
    """Return the field of Fault that this option sets; None if `name` is no option."""
    match name:
        case "once":
            return {"times": 1}
        case "times":
            return {"times": _whole(name, amount)}
        case "retry-after":
            if not _SECONDS.fullmatch(amount):
                forms = "a number of seconds, date+60 or epoch+60"
                raise ValueError(f"fault {spec!r}: retry-after is {forms}")
            return {"retry_after_s": amount}
        case "retry-after-ms":
            return {"retry_after_ms": str(_whole(name, amount))}
        case "ms":
            return {"delay_ms": _whole(name, amount)}
        case "until":
            return {"until": _day(amount)}
        case "tokens":
            return {"tokens": _whole(name, amount)}
        case "mb":
            return {"mb": _whole(name, amount)}
        case "model":
            return {"model": amount}
    return None


def parse_rates(specs: str) -> tuple[tuple[Fault, float], ...]:
    """Parse faults with their shares, such as `429=0.01,500=0.02`. The shares sum to at most 1."""
    rates: list[tuple[Fault, float]] = []
    for one in filter(None, (part.strip() for part in specs.split(","))):
        spec, _, share = one.rpartition("=")
        try:
            rate = float(share)
        except ValueError:
            raise ValueError(f"{one!r}: expected FAULT=SHARE, such as 500=0.02") from None
        if not 0 <= rate <= 1:
            raise ValueError(f"{one!r}: a share lies between 0 and 1")
        rates.append((parse_fault(spec), rate))
    if sum(rate for _, rate in rates) > 1 + 1e-9:
        raise ValueError(f"{specs!r}: the shares sum to more than 1")
    return tuple(rates)


def pick(
    rates: tuple[tuple[Fault, float], ...], chance: float, model: str, flex: bool = False
) -> Fault | None:
    """Return the fault on which `chance` (0 to 1) falls, or None; `flex`: that tier was asked."""
    for fault, rate in rates:
        if chance < rate:
            applies = _matches(fault.model, model) and (flex or fault.kind != "flex")
            return fault if applies else None
        chance -= rate
    return None


def parse_rules(found: object) -> list[FaultRule]:
    """Parse rules such as `[{"match": "..", "model": "..", "fault": "..", "times": 2}]`."""
    if not isinstance(found, list):
        raise ValueError("expected a JSON list of rules")
    rules: list[FaultRule] = []
    for position, one in enumerate(found):
        if not isinstance(one, dict) or not isinstance(one.get("fault"), str | int):
            raise ValueError(f"rule {position}: expected an object with a fault")
        unknown = set(one) - {"match", "model", "fault", "times"}
        if unknown:
            raise ValueError(f"rule {position}: unknown field {sorted(unknown)[0]!r}")
        match, model, times = one.get("match", ""), one.get("model"), one.get("times")
        if not isinstance(match, str) or not isinstance(model, str | None):
            raise ValueError(f"rule {position}: match and model are strings")
        if times is not None and (not isinstance(times, int) or times < 1):
            raise ValueError(f"rule {position}: times is a whole number above 0")
        fault = parse_fault(str(one["fault"]))
        left = fault.times if times is None else times
        rules.append(FaultRule(match, model or fault.model, fault, left))
    return rules


def retry_after_text(amount: str, epoch_s: float) -> str:
    """Return the header for a fault's `retry-after`; moments count from `epoch_s`, the time now."""
    if amount.startswith("date"):
        return formatdate(int(epoch_s) + int(amount.removeprefix("date")), usegmt=True)
    if amount.startswith("epoch"):
        return str(int(epoch_s) + int(amount.removeprefix("epoch")))
    return amount


class FaultScript:
    """Posted rules and directives, with how often each was used."""

    def __init__(self) -> None:
        self.rules: list[FaultRule] = []
        self._used: dict[tuple[int, int], int] = {}

    def forget(self) -> None:
        """Count the uses of directives from 0 again. Rules stay as they are."""
        self._used.clear()

    def next(self, text: str, model: str) -> Fault | None:
        """Return the fault for this call; raises ValueError if a directive cannot be read."""
        for rule in self.rules:
            if rule.left != 0 and rule.match in text and _matches(rule.model, model):
                if rule.left is not None:
                    rule.left -= 1
                return rule.fault
        return self._directed(text, model) if "[[fault:" in text else None

    def _directed(self, text: str, model: str) -> Fault | None:
        for place, found in enumerate(_DIRECTIVE.finditer(text)):
            fault = parse_fault(found.group(1))
            if not _matches(fault.model, model):
                continue
            if fault.times is None:
                return fault
            key = (hash(text), place)
            used = self._used.get(key, 0)
            if used < fault.times:
                self._used[key] = used + 1
                return fault
        return None


def _matches(pattern: str | None, model: str) -> bool:
    return pattern is None or fnmatchcase(model, pattern)


def _kind(name: str) -> dict[str, Any]:
    name = ALIASES.get(name, name)
    if name.isdecimal() and int(name) in STATUSES:
        return {"kind": "status", "status": int(name)}
    if name in KINDS and name != "status":
        return {"kind": name}
    raise ValueError(f"unknown fault {name!r}; known are {_known()}")


def _known() -> str:
    return ", ".join([*(str(one) for one in sorted(STATUSES)), *KINDS[1:]])


def _day(text: str) -> str:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise ValueError(f"fault option until: expected a day, not {text!r}") from None


def _whole(name: str, amount: str) -> int:
    if not amount.isdecimal():
        raise ValueError(f"fault option {name}: expected a whole number, not {amount!r}")
    return int(amount)
