"""The parameters of calls about jobs, in addresses and bodies; each is checked by its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from headgate.producer.client.arguments import require_seconds
from headgate.shared.errors import InvalidRequest
from headgate.shared.field_faults import closest

MOST_IDS = 1000


def require_only(given: Mapping[str, Any], *known: str, prefix: str = "\0") -> None:
    """Raise InvalidRequest for a name that is not known and does not begin with the prefix."""
    for name, value in given.items():
        if name not in known and not name.startswith(prefix):
            remedy = closest(name, known) if known else "leave it out"
            raise InvalidRequest(name, value, f"unknown parameter; {remedy}")


def seconds_in(given: Mapping[str, Any], name: str, default_s: float, most_s: float) -> float:
    """Return a number of seconds, at most `most_s`; raise InvalidRequest for what is none.

    In an address it is a text.
    """
    value = given.get(name)
    if value is None:
        return min(default_s, most_s)
    require_seconds(name, number := _number(value))
    return min(float(number), most_s)  # type: ignore[arg-type]  # it is a number now


def _number(value: object) -> object:
    """Return the number that a text spells; anything else as it is."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def whole_number_in(
    given: Mapping[str, Any], name: str, default: int, *, least: int, most: int
) -> int:
    """Return a whole number in these bounds; raise InvalidRequest for what is none."""
    value = given.get(name)
    if value is None:
        return default
    is_text = isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19
    number = int(value) if is_text else value
    if isinstance(number, bool) or not isinstance(number, int) or not least <= number <= most:
        remedy = f"give a whole number from {least} to {most}"
        raise InvalidRequest(name, value, remedy)
    return number


def flag_in(given: Mapping[str, Any], name: str) -> bool:
    """Return true or false, false if it is not given; raise InvalidRequest for anything else."""
    value = given.get(name, False)
    if not isinstance(value, bool):
        raise InvalidRequest(name, value, "give true or false")
    return value


def ids_in(body: Mapping[str, Any]) -> list[str]:
    """Return the ids of a body; raise InvalidRequest unless they are 1 to 1,000 texts."""
    ids = body.get("ids")
    if not isinstance(ids, list):
        raise InvalidRequest("ids", ids, "give a list of ids of jobs")
    if not 1 <= len(ids) <= MOST_IDS:
        raise InvalidRequest("ids", f"{len(ids)} ids", f"give 1 to {MOST_IDS} in one call")
    for place, job_id in enumerate(ids):
        if not isinstance(job_id, str):
            raise InvalidRequest(f"ids[{place}]", job_id, "give the id of a job as text")
    return ids


def first_of_each(request: Request) -> dict[str, str]:
    """Return the headers; of one that was sent twice the first counts."""
    return dict(reversed(request.headers.items()))


def once_each(request: Request) -> dict[str, str]:
    """Return the parameters of the address; raise InvalidRequest for one that is given twice."""
    found: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name in found:
            raise InvalidRequest(name, value, "it is given twice; give it once")
        found[name] = value
    return found
