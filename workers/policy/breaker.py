"""What counts as a model's fault, and which failures a retry would repeat at a provider. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from headgate.workers.errors import AttemptError

#: Codes that are about the model, its provider or the key. A request's own faults do not count,
#: nor what limits, quotas and callers end.
FAULTS = frozenset(
    {"timeout", "connection", "provider_error", "overloaded", "invalid_output", "authentication",
     "permission"}
)  # fmt: skip

_OF_KEYS = frozenset({"authentication", "permission"})

LOOK_MS, LEAST_MS = 30_000, 1000
"""Longest and shortest wait until a job with several models down looks for one that is up."""

UNKNOWN_MS = 2**40
"""Wait of a model of which nobody has said when a probe may go."""


def wait_for_one(down: Mapping[str, int], left_ms: int, chance: float) -> tuple[str, int]:
    """Return the model that a job waits for while its models are down, and the ms until it looks.

    `down`: model to the ms until one probe may go. 0 ms: it waits in the queue of the only one.
    With several, `chance` in [0, 1) spreads the jobs, so that they do not all look at once.
    """
    name = min(down, key=lambda model: down[model])
    if len(down) == 1:
        return name, 0
    wait_ms = min(LOOK_MS, down[name]) * (1 + chance / 4)
    return name, int(max(LEAST_MS, min(wait_ms, left_ms)))


def is_fault(error: AttemptError, *, cut_short: bool = False, again: bool = False) -> bool:
    """Return whether the failure counts against the model.

    Two kinds of timeouts prove nothing. `cut_short`: the job's deadline made the time limit
    shorter. `again`: the same job has timed out at the model before, so it may be slow by itself.
    A wrong base URL is no fault: jobs fail at once with the reason, and do not wait for a probe.
    """
    if error.code == "timeout" and (cut_short or again):
        return False
    return error.code in FAULTS and (error.retryable or error.code in _OF_KEYS)


def fault_text(error: AttemptError) -> str:
    """Return code and message of a fault for those who wait for the model, at most 200 characters.

    The message holds no key and nothing of the request. E-mail addresses and the ids of accounts
    are cut out: other tenants read it.
    """
    words = " ".join(error.message.encode(errors="replace").decode().split())
    text = _PERSONAL.sub("[...]", f"{error.code}: {words}")
    return text if len(text) <= FAULT_CHARS else text[: FAULT_CHARS - 3] + "..."


FAULT_CHARS = 200
_PERSONAL = re.compile(r"[\w.+%-]+@[\w-]+(\.[\w-]+)+|\b(org|proj|user|acct|cus)[-_]\w{6,}", re.I)


def loads_provider(error: AttemptError) -> bool:
    """Return whether a retry after this failure asks for the same work a second time.

    Only such retries take from the retry budget. A connection that could not be opened brought the
    provider no work. A refusal by a limit waits until that limit lets the request through.
    """
    is_unsent = error.code == "connection" and error.billed is False
    return is_fault(error) and not is_unsent
