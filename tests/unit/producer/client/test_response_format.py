"""A pydantic model as the form of an answer: its strict schema, and the answer as an object."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from headgate import AnswerMismatch, InvalidRequest, Result
from headgate.producer.client.response_format import parsed_by, with_response_format
from headgate.producer.client.strict_schema import schema_name, strict_schema
from headgate.shared.job.request import request_from


class Place(BaseModel):
    name: str
    country: str | None = None


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"]


class Trip(BaseModel):
    """A trip."""

    start: Annotated[Place, Field(description="where it begins")]
    stops: list[Place] = []
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    pair: tuple[int, str]


class Node(BaseModel):
    value: int
    children: list[Node] = []


def objects_in(schema: Any) -> list[dict[str, Any]]:
    """Return all schemas of objects in a schema."""
    found = []
    if isinstance(schema, dict):
        found += [schema] if schema.get("type") == "object" else []
        found += [one for part in schema.values() for one in objects_in(part)]
    if isinstance(schema, list):
        found += [one for part in schema for one in objects_in(part)]
    return found


@pytest.mark.parametrize("model", [Place, Trip, Node])
def test_every_object_is_closed_and_requires_all_its_fields(model: type[BaseModel]) -> None:
    schema = strict_schema(model)
    assert schema["type"] == "object"
    assert objects_in(schema)
    for one in objects_in(schema):
        assert one["additionalProperties"] is False
        assert one["required"] == list(one["properties"])
    text = str(schema)
    for word in ("'default'", "'oneOf'", "'discriminator'", "'allOf'"):
        assert word not in text, word


def test_nothing_stands_beside_a_reference() -> None:
    start = strict_schema(Trip)["properties"]["start"]
    assert start["description"] == "where it begins"
    assert start["required"] == ["name", "country"]
    assert "$ref" not in start


class Counts(BaseModel):
    counts: dict[str, int]


class Numbers(BaseModel):
    inner: list[Counts]


def test_what_has_no_strict_schema_is_refused_by_its_place() -> None:
    with pytest.raises(InvalidRequest, match=r"Numbers\.Counts\.counts.*dict of any keys"):
        strict_schema(Numbers)


@pytest.mark.parametrize("wrong", [5, "json", Place(name="x"), dict])
def test_what_is_no_form_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"response_format: .*give a pydantic model"):
        with_response_format({"prompt": "x"}, wrong)


def test_the_form_goes_where_the_dialect_has_it() -> None:
    asked = with_response_format({"prompt": "x", "params": {"seed": 1}}, Place)
    form = asked["params"]["response_format"]["json_schema"]
    assert (form["name"], form["strict"], asked["params"]["seed"]) == ("Place", True, 1)
    assert request_from(dict(asked)).params == asked["params"]
    claude = with_response_format(
        {"prompt": "x", "dialect": "anthropic", "params": {"output_config": {"effort": "low"}}},
        Place,
    )["params"]["output_config"]
    assert (claude["effort"], claude["format"]["schema"]) == ("low", form["schema"])
    responses: Any = {"input": "x", "dialect": "responses"}
    text = with_response_format(responses, Place)["params"]["text"]["format"]
    assert (text["name"], text["schema"]) == ("Place", form["schema"])
    said = with_response_format({"input": "x", "instructions": "Be kind."}, Place)
    assert said["params"] == {"instructions": "Be kind.", "text": {"format": text}}
    own = {"type": "json_object"}
    assert with_response_format({"prompt": "x"}, own)["params"]["response_format"] == own
    assert with_response_format({"prompt": "x"}, None) == {"prompt": "x"}


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "x", "params": {"response_format": {"type": "text"}}},
        {"input": "x"},
    ],
)
def test_a_form_that_cannot_be_is_refused(fields: Any) -> None:
    with pytest.raises(InvalidRequest, match="response_format: 'Place'"):
        with_response_format(fields, Place)


def test_a_name_of_a_model_is_one_that_vendors_take() -> None:
    made = type("Box[Größe]", (BaseModel,), {})
    assert schema_name(made) == "Box_Gr_e"
    assert len(schema_name(type("A" * 99, (BaseModel,), {}))) == 64


def result(content: str | None, **fields: Any) -> Result:
    """Return a result with this content."""
    known: dict[str, Any] = {"status": "succeeded", **fields}
    return parsed_by(Result(id="7", model="m", content=content, **known), Place)


def test_an_answer_is_parsed_once() -> None:
    found = result('{"name": "Lima", "country": null}')
    assert found.parsed == Place(name="Lima")
    assert found.parsed is found.parsed
    assert found.model_dump().keys() == Result(id="7", model="m", status="queued").as_json().keys()
    assert found == Result(id="7", model="m", content=found.content, status="succeeded")


def test_there_is_no_object_for_a_refusal_a_failure_and_without_a_model() -> None:
    assert result(None).parsed is None
    assert result("{}", status="failed").parsed is None
    assert Result(id="7", model="m", content="{}", status="succeeded").parsed is None
    named = result('{"name": "Lima"}')
    assert parsed_by(named, {"type": "json_object"}).parsed == Place(name="Lima")


def test_an_answer_of_another_form_says_what_is_wrong_without_quoting_it() -> None:
    with pytest.raises(AnswerMismatch, match="job 7 is no Place: name: ") as caught:
        result('{"name": 5071}').parsed  # noqa: B018
    assert "5071" not in str(caught.value)
    with pytest.raises(AnswerMismatch, match="ended at max_tokens") as caught:
        result('{"name": "Li', finish_reason="length").parsed  # noqa: B018
    assert (caught.value.finish_reason, caught.value.response_format) == ("length", "Place")


class Link(BaseModel):
    name: str
    next: Annotated[Link, Field(description="the next one")] = None  # type: ignore[assignment]
    last: Link = None  # type: ignore[assignment]


def test_a_model_in_itself_has_a_schema_also_with_words_beside_it() -> None:
    schema = strict_schema(Link)
    assert schema["properties"]["last"] == {"$ref": "#/$defs/Link"}
    within = schema["properties"]["next"]
    assert within["description"] == "the next one"
    assert within["properties"]["next"] == {"$ref": "#/$defs/Link"}
    assert schema["required"] == within["required"] == ["name", "next", "last"]


class Unfinished(BaseModel):
    later: NotYetThere  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize("wanted", [Unfinished, BaseModel])
def test_a_model_that_is_not_finished_or_none_at_all_is_refused(wanted: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        with_response_format({}, wanted)
    assert caught.value.field == "response_format"
    assert "\n" not in str(caught.value)


def test_a_set_is_a_list_to_the_vendor() -> None:
    class Words(BaseModel):
        words: set[str]

    assert "uniqueItems" not in strict_schema(Words)["properties"]["words"]
