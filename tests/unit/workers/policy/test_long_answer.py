"""Which answers may take long, and how long their calls may take."""

import math
from typing import Any

import pytest

from headgate.shared.catalog import catalog
from headgate.shared.catalog.schema import Model
from headgate.shared.job.request import Request
from headgate.workers.errors import AttemptTimeout, RateLimited, RequestRefused, Unauthorized
from headgate.workers.policy import long_answer

CATALOG = catalog.load()


def model(most: int) -> Model:
    """A model whose answers have at most so many tokens; 0: nobody knows."""
    return CATALOG.model("gpt-4o").model_copy(update={"max_output_tokens": most})


def asking(**params: Any) -> Request:
    return Request(prompt="Tell me", params=params)


@pytest.mark.parametrize(
    ("most", "params", "timeout_s", "is_long"),
    [
        (128_000, {}, 300, True),
        (128_000, {"max_tokens": 4_000}, 300, False),  # done in 113 s
        (128_000, {"max_tokens": 5_000}, 300, True),
        (128_000, {"max_completion_tokens": 4_000}, 300, False),
        (16_384, {}, 120, False),
        (16_384, {}, 121, True),
        (0, {}, 120, False),
        (0, {}, 121, True),
        # As the SDK of Anthropic has it: more than 10 minutes at 128,000 tokens an hour.
        (64_000, {"max_tokens": 21_333}, 120, False),
        (64_000, {"max_tokens": 21_334}, 120, True),
        (64_000, {}, 60, True),
        (8_000, {"max_tokens": 64_000}, 120, False),  # no more than the model can
    ],
)
def test_an_answer_is_long_by_the_models_time_or_by_its_tokens(
    most: int, params: dict[str, Any], timeout_s: float, is_long: bool
) -> None:
    assert long_answer.may_be_long(asking(**params), model(most), timeout_s) == is_long


def test_embeddings_are_never_long() -> None:
    assert not long_answer.may_be_long(Request(input="x"), model(0), 600)


def test_the_whole_of_a_long_answer_has_the_time_that_its_tokens_take() -> None:
    assert long_answer.whole_s(asking(), model(64_000), 120) == 120 + 1800
    assert long_answer.whole_s(asking(max_tokens=12_800), model(64_000), 300) == 300 + 360
    assert long_answer.whole_s(asking(), model(393_216), 600) == 600 + 3600
    assert long_answer.output_s(asking(), model(0)) == math.inf
    assert long_answer.whole_s(asking(), model(0), 600) == 600 + 3600


@pytest.mark.parametrize(
    ("params", "fits"),
    [
        ({}, True),
        ({"logprobs": True, "top_logprobs": 2}, True),
        ({"modalities": ["text"]}, True),
        ({"modalities": ["text", "audio"]}, False),
        ({"audio": {"voice": "ash", "format": "wav"}}, False),
    ],
)
def test_sound_is_asked_for_whole(params: dict[str, Any], fits: bool) -> None:
    assert long_answer.fits_a_stream(asking(**params)) == fits


VERIFY = "HTTP 400: Your organization must be verified to stream this model."


def test_a_refusal_that_is_about_the_stream_is_recognised() -> None:
    assert long_answer.refuses_streams(RequestRefused(VERIFY))
    assert long_answer.refuses_streams(Unauthorized("HTTP 403: streaming is not allowed"))
    assert not long_answer.refuses_streams(RequestRefused("HTTP 400: bad upstream request"))
    assert not long_answer.refuses_streams(RateLimited("HTTP 429: too many streams"))
    assert not long_answer.refuses_streams(AttemptTimeout("the stream stalled", billed=None))
