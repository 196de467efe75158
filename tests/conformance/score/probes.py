"""Puts a property into a body at its place, and looks for it in what came."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.conformance.score.addresses import IDS
from tests.conformance.score.description import Description, Node


@dataclass(frozen=True)
class Probe:
    """A body, and the properties of one object in it: their values, and the object's place."""

    node: Node
    body: dict[str, Any]
    values: Mapping[str, Any]


def whole(at: Description, node: Node, base: Mapping[str, Any], left_out: set[str]) -> Probe:
    """Return a body with all properties of the object, but for those left out at the root."""
    names = [n for n in node.properties if node.above is not None or n not in left_out]
    values = {name: at.example(node.properties[name], name) for name in names}
    return _probe(at, node, values, base)


def singles(at: Description, node: Node, name: str, base: Mapping[str, Any]) -> Iterator[Probe]:
    """Yield a body for each kind of value of one property."""
    for one in at.variants(node.properties[name]):
        yield _probe(at, node, {name: at.value(one, name)}, base)


def _probe(at: Description, node: Node, values: dict[str, Any], base: Mapping[str, Any]) -> Probe:
    made: Any = {**at.least(node.schema), **values}
    if node.above is None:
        made = {**at.least(node.schema), **base, **values}
        return Probe(node, made, values)
    place: Node = node
    while place.above is not None:
        for _ in range(place.levels):
            made = [made]
        holder = at.least(place.above.schema)
        if place.above.above is None:
            holder |= base
        made, place = {**holder, place.name: made}, place.above
    return Probe(node, made, values)


def lost(probe: Probe, came: object, *, is_answer: bool = False) -> list[str]:
    """Return the properties of the probe that did not come as they were sent."""
    found = objects_at(probe.node, came)
    return [
        name for name, value in probe.values.items()
        if not any(_is_there(name, value, one, is_answer=is_answer) for one in found)
    ]  # fmt: skip


def objects_at(node: Node, came: object) -> list[Mapping[str, Any]]:
    """Return the objects at the place of the node."""
    if node.above is None:
        return [came] if isinstance(came, Mapping) else []
    found: list[Any] = [one[node.name] for one in objects_at(node.above, came) if node.name in one]
    for _ in range(node.levels):
        found = [one for many in found if isinstance(many, list) for one in many]
    return [one for one in found if isinstance(one, Mapping)]


RENAMED = {
    "max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens",
}  # fmt: skip
"""Two names of one limit: each provider is sent the one that it knows."""


def _is_there(name: str, value: object, one: Mapping[str, Any], *, is_answer: bool) -> bool:
    if name not in one and not is_answer:
        name = RENAMED.get(name, name)
    if name not in one:
        return False
    if is_answer and name in IDS:
        return one[name] is None or isinstance(one[name], type(value))
    return _holds(one[name], value, is_answer=is_answer)


def _holds(came: object, sent: object, *, is_answer: bool) -> bool:
    """Return whether all that was sent is there; ids and what was added do not count."""
    if isinstance(sent, Mapping) and isinstance(came, Mapping):
        return all(_is_there(str(n), v, came, is_answer=is_answer) for n, v in sent.items())
    if isinstance(sent, list) and isinstance(came, list):
        return len(came) == len(sent) and all(
            _holds(one, other, is_answer=is_answer) for one, other in zip(came, sent, strict=True)
        )
    return came == sent
