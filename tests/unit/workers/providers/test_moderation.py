"""Moderations: the verdicts of vendors, and those of an operator's own function."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from openai.types import ModerationCreateResponse

from headgate.shared.catalog import catalog
from headgate.shared.job.request import Request, request_from
from headgate.workers.errors import AttemptError, AttemptTimeout, InvalidOutput, ProviderFault
from headgate.workers.provider import Answer
from headgate.workers.providers.http import Response
from headgate.workers.providers.moderation.function import FunctionModerator
from headgate.workers.providers.moderation.verdicts import CATEGORIES, read_moderation, verdicts
from headgate.workers.stages.call import Call, Upstream

TWO = Request(dialect="moderations", input=["one", "two"])
IMAGE: dict[str, Any] = {"type": "image_url", "image_url": {"url": "u"}}
PARTS = Request(dialect="moderations", input=[{"type": "text", "text": "x"}, IMAGE])


def read(body: dict[str, Any], request: Request = TWO) -> Answer:
    return read_moderation(body, Response(200, {"x-request-id": "req_1"}, b""), request)


def test_the_vendors_moderation_is_kept_whole_and_counts_the_estimate_as_input() -> None:
    results = [{"flagged": False, "categories": {"hate": False}, "newer": 1}] * 2
    answer = read({"id": "modr-1", "model": "omni-moderation-2024-09-26", "results": results})
    assert answer.reply.message == {
        "id": "modr-1", "model": "omni-moderation-2024-09-26", "results": results,
    }  # fmt: skip
    assert (answer.reply.content, answer.reply.embeddings) == (None, None)
    assert answer.reply.request_id == "req_1"
    assert answer.counted
    assert answer.reply.usage.input_tokens > 0
    assert answer.reply.usage.output_tokens == 0


def test_an_input_is_flagged_if_one_of_its_categories_is_where_the_vendor_does_not_say() -> None:
    results = [{"categories": {"pii": True}}, {"categories": {"pii": False}}]
    answer = read({"model": "mistral", "results": results, "usage": {"prompt_tokens": 12}})
    assert answer.reply.message is not None
    assert [one["flagged"] for one in answer.reply.message["results"]] == [True, False]
    assert answer.reply.usage.input_tokens == 12


@pytest.mark.parametrize(
    "results", [None, [], [{}, {}], [{"categories": {}}], ["x", "y"], [{"categories": 1}] * 2]
)
def test_an_answer_that_does_not_judge_each_input_is_no_answer(results: Any) -> None:
    with pytest.raises(InvalidOutput):
        read({"results": results})


def test_parts_are_judged_as_a_whole() -> None:
    assert len(PARTS.inputs) == 1
    assert read({"results": [{"categories": {}}]}, PARTS).reply.message is not None


def test_the_verdicts_of_a_function_become_openais_form() -> None:
    made = verdicts(
        [True, {"categories": {"violence": True, "own": False}, "category_scores": {"hate": 0.5}}],
        TWO.inputs,
    )
    body = {"id": "modr-1", "model": "m", "results": made}
    read_back = ModerationCreateResponse.model_validate(body, strict=True)
    assert [one.flagged for one in read_back.results] == [True, True]
    assert read_back.results[1].categories.violence
    assert (made[1]["categories"]["own"], made[1]["category_scores"]["hate"]) == (False, 0.5)
    assert made[1]["category_scores"]["violence"] == 1.0
    assert made[0].keys() == made[1].keys()
    assert set(CATEGORIES) <= made[0]["categories"].keys()
    [whole] = verdicts([False], PARTS.inputs)
    assert whole["category_applied_input_types"]["violence"] == ["text", "image"]
    assert whole["category_applied_input_types"]["hate"] == ["text"]


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (None, "list of 2"), ([True], "list of 2"), ([True, 1], "a verdict is int"),
        ([True, {"flagged": 1}], "flagged"), ([True, {"categories": {"a": 1}}], "categories"),
        ([True, {"category_scores": {"a": 2}}], "from 0 to 1"),
        ([True, {"category_scores": {"a": float("nan")}}], "from 0 to 1"),
    ],
)  # fmt: skip
def test_a_wrong_verdict_of_a_function_is_named(returned: Any, words: str) -> None:
    with pytest.raises(InvalidOutput, match=words):
        verdicts(returned, TWO.inputs)


async def ask(function: Callable[[list[Any]], Any], timeout_s: float = 60) -> Answer:
    moderator = FunctionModerator(function)
    return await moderator.ask(TWO, model="m", max_output_tokens=0, timeout_s=timeout_s)


async def test_a_function_judges_in_a_thread_and_an_async_one_on_the_loop() -> None:
    seen: list[tuple[list[Any], int]] = []

    def judge(inputs: list[Any]) -> list[bool]:
        seen.append((inputs, threading.get_ident()))
        return [one == "two" for one in inputs]

    async def judge_later(inputs: list[Any]) -> list[bool]:
        await asyncio.sleep(0)
        return judge(inputs)

    for function in (judge, judge_later):
        message = (await ask(function)).reply.message
        assert message is not None
        assert [one["flagged"] for one in message["results"]] == [False, True]
        assert message["id"].startswith("modr-")
    assert [inputs for inputs, _ in seen] == [["one", "two"]] * 2
    assert seen[0][1] != threading.get_ident() == seen[1][1]


async def test_a_function_that_raises_or_hangs_fails_the_attempt_and_quotes_nothing() -> None:
    def raises(inputs: list[Any]) -> None:
        raise ValueError(inputs)

    hangs = threading.Event()
    failed: list[AttemptError] = []
    for function, timeout_s in ((raises, 60.0), (lambda _: hangs.wait(60), 0.05)):
        with pytest.raises(AttemptError) as caught:
            await ask(function, timeout_s)
        failed.append(caught.value)
    hangs.set()
    assert [type(error) for error in failed] == [ProviderFault, AttemptTimeout]
    assert "ValueError at test_moderation.py" in failed[0].message
    assert "one" not in failed[0].message.replace("moderation", "")


async def test_the_function_takes_the_place_of_a_provider_for_moderations_alone() -> None:
    own = Upstream(FunctionModerator(lambda inputs: [False] * len(inputs)), "")
    models = catalog.load(None)
    call = Call(models, lambda _: [], timeout_s=1, moderator=own)
    assert await call.upstream(models.model("omni-moderation-latest")) is own
    assert await call.upstream(models.model("gpt-4o-mini")) is None


def test_a_moderation_travels_as_version_3_and_asks_its_own_model() -> None:
    asked = request_from({"dialect": "moderations", "input": "x"})
    assert (asked.version, asked.answer_kind, asked.embeds) == (3, "moderation", False)
    assert asked.model_or("gpt-4o-mini") == "omni-moderation-latest"
