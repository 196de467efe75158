"""The score of conformance: what a probe holds, and what counts as lost."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.score.addresses import POSTED
from tests.conformance.score.description import Description, Node
from tests.conformance.score.probes import lost, singles, whole
from tests.conformance.score.report import Score, below_aim, report


@pytest.fixture(scope="module")
def at() -> Description:
    return Description()


def node_of(at: Description, title: str) -> Node:
    found = at.nodes(at.request("/chat/completions"))
    return next(node for node in found if node.title == title)


def test_each_object_of_a_description_is_walked_once(at: Description) -> None:
    for address in POSTED:
        paths = [node.path for node in at.nodes(at.request(address.path))]
        assert len(paths) == len(set(paths))
        assert paths


def test_a_probe_puts_a_property_into_its_place_and_finds_it_there(at: Description) -> None:
    node = node_of(at, "FunctionObject")
    probe = whole(at, node, POSTED[0].base(), set())
    [tool] = probe.body["tools"]
    assert tool["function"]["description"] == probe.values["description"]
    assert lost(probe, probe.body) == []
    without: dict[str, Any] = {**probe.body, "tools": [{"type": "function", "function": {}}]}
    assert set(lost(probe, without)) == set(probe.values)


def test_a_property_of_several_types_is_tried_with_each(at: Description) -> None:
    node = next(at.nodes(at.request("/chat/completions")))
    values = [probe.values["stop"] for probe in singles(at, node, "stop", POSTED[0].base())]
    assert [type(value) for value in values] == [str, list]


def test_ids_of_an_answer_may_be_ours_and_other_values_may_not(at: Description) -> None:
    node = next(at.nodes(at.answer("/chat/completions")))
    probe = whole(at, node, {}, set())
    came = {**probe.body, "id": "ours", "created": 7}
    assert lost(probe, came, is_answer=True) == []
    assert lost(probe, {**came, "choices": []}, is_answer=True) == ["choices"]
    assert lost(probe, {**came, "id": 1}, is_answer=True) == ["id"]


def test_a_category_below_its_aim_is_seen_and_named() -> None:
    good, bad = Score("chat", 100, []), Score("models", 10, ["answer Model.id"])
    assert not below_aim([good])
    assert below_aim([good, bad])
    assert "models: answer Model.id" in report([good, bad], names=True)
