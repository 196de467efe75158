"""From fields to an envelope: defaults, the catalog, and a clear refusal of each fault."""

import math
import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson
import pytest

from headgate.producer.submit.prepare import Submitter
from headgate.shared.admission.ticket import Ticket
from headgate.shared.catalog import catalog
from headgate.shared.catalog.schema import Model
from headgate.shared.cost.tokens import ANSWER_TOKENS, MESSAGE_TOKENS
from headgate.shared.cost.upper_bound import upper_bound_pico_usd
from headgate.shared.errors import InvalidRequest
from headgate.shared.job.encoding import MAX_REQUEST_BYTES
from headgate.shared.job.envelope import Envelope
from headgate.shared.job.request import Request
from headgate.shared.routing import capabilities
from headgate.shared.settings import Settings

CATALOG = catalog.load()


def submitter(**settings: Any) -> Submitter:
    return Submitter(Settings(**settings), CATALOG)


def refusal(fields: Any, **settings: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        submitter(**settings).prepare(fields)
    return caught.value


def test_what_is_prepared_is_what_a_worker_reads() -> None:
    fields = {"prompt": "Hello", "model": "gpt-4o", "tenant": "acme", "metadata": {"a": [1]}}
    envelope, encoded, _ = submitter().prepare(
        fields, batch_id="b", batch_line=7, custom_id="line seven"
    )
    assert Envelope.decode(orjson.loads(encoded)) == envelope
    assert (envelope.model, envelope.model_class) == ("gpt-4o", CATALOG.model("gpt-4o").model_class)
    assert (envelope.batch_id, envelope.batch_line, envelope.custom_id) == ("b", 7, "line seven")
    assert envelope.request.metadata == {"a": [1]}


def test_a_ticket_is_counted_with_the_vocabulary_of_its_model() -> None:
    pytest.importorskip("bpe_openai", reason="the extra `bpe` is not installed")
    text = "0192f3a4-5b6c-7d8e-9f01-23456789abcd"
    ticket = Ticket.decode(submitter().prepare({"prompt": text, "model": "gpt-4o"}).ticket)
    assert ticket.input_tokens == 25 + MESSAGE_TOKENS + ANSWER_TOKENS


def test_a_request_object_is_taken_as_it_is() -> None:
    envelope, _, _ = submitter().prepare(Request(prompt="Hello", model="gpt-4o"))
    assert envelope.request.prompt == "Hello"


def test_the_settings_fill_in_what_a_request_leaves_out() -> None:
    ours = submitter(model="gpt-4o", max_tokens=50, temperature=0.5)
    envelope, _, _ = ours.prepare({"prompt": "Hello"})
    assert envelope.model == "gpt-4o"
    assert envelope.request.params == {"max_tokens": 50, "temperature": 0.5}


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_what_a_request_says_wins_over_the_settings(limit: str) -> None:
    ours = submitter(model="gpt-4o", max_tokens=50, temperature=0.5)
    own = {limit: 9, "temperature": 0}
    envelope, _, _ = ours.prepare({"prompt": "Hello", "model": "gpt-4o-mini", "params": own})
    assert envelope.model == "gpt-4o-mini"
    assert envelope.request.params == own


def test_settings_for_answers_stay_out_of_an_embedding_job() -> None:
    ours = submitter(max_tokens=50, temperature=0.5)
    envelope, _, _ = ours.prepare({"input": ["a", "b"], "model": "text-embedding-3-small"})
    assert envelope.request.params == {}
    assert envelope.model_class == "embedding"


def test_a_default_temperature_is_not_given_to_a_model_that_refuses_it() -> None:
    name = next(
        m.name
        for m in CATALOG.models.values()
        if "temperature" not in m.capabilities and not m.embeds
    )
    envelope, _, _ = submitter(temperature=0.5).prepare({"prompt": "Hello", "model": name})
    assert envelope.request.params == {}


def test_a_model_may_be_named_with_its_provider() -> None:
    envelope, _, _ = submitter().prepare({"prompt": "Hello", "model": "openai/gpt-4o-mini"})
    assert envelope.model == "gpt-4o-mini"


def test_an_unknown_model_is_refused_with_a_hint() -> None:
    error = refusal({"prompt": "Hello", "model": "gpt-4o-mni"})
    assert (error.code, error.field) == ("unknown_model", "model")
    assert "gpt-4o-mini" in error.remedy


def test_an_unknown_default_model_is_blamed_on_its_variable() -> None:
    assert refusal({"prompt": "Hello"}, model="gpt-99").field == "HEADGATE_MODEL"


def test_auto_is_no_model_to_fall_back_to() -> None:
    error = refusal({"prompt": "Hello", "model": "gpt-4o", "fallback": ["auto"]})
    assert error.field == "fallback[0]"
    assert "name a model" in error.remedy


def test_an_embedding_model_does_not_answer_and_another_does_not_embed() -> None:
    chat = refusal({"prompt": "Hello", "model": "text-embedding-3-small"})
    embed = refusal({"input": "Hello", "model": "gpt-4o"})
    assert (chat.field, embed.field) == ("model", "model")
    assert "embeds" in chat.remedy
    assert "answers" in embed.remedy


@pytest.mark.parametrize("name", ["gpt-99", "text-embedding-3-small"])
def test_each_name_of_a_fallback_list_must_fit(name: str) -> None:
    error = refusal({"prompt": "Hello", "model": "gpt-4o", "fallback": ["gpt-4o-mini", name]})
    assert (error.field, error.value) == ("fallback[1]", name)


def test_a_prompt_over_the_context_window_is_refused_before_any_call() -> None:
    window = CATALOG.model("gpt-4o-mini").context_tokens
    error = refusal({"prompt": "word and word " * window, "model": "gpt-4o-mini"})
    assert (error.code, error.field) == ("context_length", "prompt")
    assert str(window) in error.remedy
    assert len(str(error)) < 400


def test_the_output_asked_for_counts_in_the_context_window() -> None:
    model = CATALOG.model("gpt-4o-mini")
    prompt = "word and word " * int(model.context_tokens * 0.46)
    submitter().prepare({"prompt": prompt, "model": model.name})
    asked = {"max_tokens": model.max_output_tokens}
    error = refusal({"prompt": prompt, "model": model.name, "params": asked})
    assert error.code == "context_length"
    assert f"{model.max_output_tokens} reserved for the answer" in error.remedy


def test_eleven_megabytes_are_refused() -> None:
    error = refusal({"prompt": "x" * (MAX_REQUEST_BYTES + 1_000_000)})
    assert error.code == "invalid_request"
    assert "10 MB" in error.remedy


@pytest.mark.parametrize("model", ["auto", "gpt-4o-mini", "claude-haiku-4-5"])
@pytest.mark.parametrize("form", ["prompt", "messages"])
def test_eleven_megabytes_name_the_bound_whatever_else_is_wrong(model: str, form: str) -> None:
    text = "word " * 2_200_000
    given = text if form == "prompt" else [{"role": "user", "content": text}]
    error = refusal({form: given, "model": model})
    assert str(error).startswith("request: '11000")
    assert error.remedy == f"the limit is {MAX_REQUEST_BYTES} bytes (10 MB)"


NAMED_PARTS: dict[str, tuple[dict[str, Any], str]] = {
    "a NaN in the metadata": (
        {"metadata": {"a": [{"b": math.nan}]}}, "metadata.a[0].b: nan: is no number in JSON",
    ),
    "an infinity in params of the vendor": (
        {"params": {"min_p": math.inf}}, "params.min_p: inf: is no number in JSON",
    ),
    "bytes": ({"metadata": {"a": b"b"}}, "metadata.a: b'b': bytes cannot be written as JSON"),
    "a set in a tool": (
        {"params": {"tools": [{"a": {1}}]}}, "params.tools[0].a: {1}: set cannot be written",
    ),
    "a key that is no text": ({"metadata": {"a": {1: 2}}}, "metadata.a: 1: int cannot be"),
    "with an idempotency key": (
        {"metadata": {"a": b"b"}, "idempotency_key": "k"}, "metadata.a: b'b': bytes cannot",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", NAMED_PARTS)
def test_what_json_has_no_form_for_is_named_with_its_place(what: str) -> None:
    fields, message = NAMED_PARTS[what]
    assert str(refusal({"prompt": "a", "model": "gpt-4o-mini", **fields})).startswith(message)


def test_lists_that_hold_each_other_are_refused_soon() -> None:
    twice: list[Any] = []
    twice += [twice, twice, b"x"]
    assert refusal({"prompt": "a", "params": {"x": twice}}).remedy


def nested(depth: int) -> dict[str, Any]:
    inside: dict[str, Any] = {}
    for _ in range(depth):
        inside = {"a": inside}
    return inside


def circular() -> dict[str, Any]:
    loop: dict[str, Any] = {}
    loop["a"] = loop
    return loop


BAD_FIELDS: dict[str, dict[str, Any]] = {
    "nothing at all": {},
    "two of three": {"prompt": "a", "input": "b"},
    "an unknown field": {"prompt": "a", "max_tokens": 5},
    "a webhook that is no URL": {"prompt": "a", "webhook_url": "k"},
    "a webhook by http": {"prompt": "a", "webhook_url": "http://hooks.example.com/"},
    "a webhook to this machine": {"prompt": "a", "webhook_url": "https://127.0.0.1/"},
    "a wrong type": {"prompt": 5},
    "a number as a text": {"prompt": "a", "deadline_s": "60"},
    "a name that is no text": {"prompt": "a", 5: "b"},  # type: ignore[dict-item]
    "a negative number": {"prompt": "a", "deadline_s": -1},
    "a deadline that is no number": {"prompt": "a", "deadline_s": math.nan},
    "an endless deadline": {"prompt": "a", "deadline_s": math.inf},
    "a NaN deep inside": {"prompt": "a", "metadata": {"a": [{"b": math.nan}]}},
    "a NaN among the params": {"prompt": "a", "params": {"temperature": math.nan}},
    "a lone surrogate": {"prompt": "a\ud800"},
    "a lone surrogate in a name": {"prompt": "a", "user": "\udc00"},
    "a NUL in a name": {"prompt": "a", "tenant": "acme\0"},
    "a NUL in a user": {"prompt": "a", "user": "\0"},
    "bytes": {"prompt": "a", "metadata": {"a": b"b"}},
    "an object": {"prompt": "a", "metadata": {"a": object()}},
    "a number over 64 bits": {"prompt": "a", "metadata": {"a": 2**70}},
    "keys that are no texts": {"prompt": "a", "metadata": {"a": {1: 2}}},
    "money as a Decimal": {"prompt": "a", "metadata": {"a": Decimal(1)}},
    "too deep": {"prompt": "a", "metadata": nested(5_000)},
    "a circle": {"prompt": "a", "metadata": circular()},
}


@pytest.mark.parametrize("what", BAD_FIELDS)
def test_bad_fields_are_refused_in_one_short_line(what: str) -> None:
    error = refusal(BAD_FIELDS[what])
    assert error.remedy
    assert len(str(error)) < 600
    str(error).encode()


def test_a_nul_in_a_prompt_is_text_like_any_other() -> None:
    _, encoded, _ = submitter().prepare({"prompt": "a\0b"})
    assert orjson.loads(encoded)["request"]["prompt"] == "a\0b"


def test_a_moment_in_the_metadata_is_written_as_text() -> None:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    _, encoded, _ = submitter().prepare({"prompt": "a", "metadata": {"at": at}})
    assert orjson.loads(encoded)["request"]["metadata"]["at"].startswith("2026-01-02T00:00:00")


def test_many_requests_come_in_three_forms_and_keep_their_order() -> None:
    requests: list[Any] = ["a", {"prompt": "b"}, Request(prompt="c")]
    prepared = list(submitter().prepare_many(requests))
    assert [job.envelope.request.prompt for job in prepared] == ["a", "b", "c"]
    ids = [job.envelope.id for job in prepared]
    assert len(set(ids)) == 3


def test_a_fault_among_many_names_its_place() -> None:
    with pytest.raises(InvalidRequest) as caught:
        list(submitter().prepare_many(["a", {"prompt": "b", "model": "gpt-99"}]))
    assert caught.value.field == "requests[1].model"
    assert caught.value.code == "unknown_model"


@pytest.mark.parametrize("item", [5, None, ["a"], b"a"])
def test_what_is_no_request_names_its_place(item: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"requests\[0\]"):
        list(submitter().prepare_many([item]))


@pytest.mark.parametrize("requests", ["text", b"text", {"prompt": "a"}, Request(prompt="a")])
def test_one_request_is_not_taken_for_many(requests: Any) -> None:
    with pytest.raises(InvalidRequest, match="give a list"):
        list(submitter().prepare_many(requests))


def test_a_job_that_may_cost_more_than_it_may_is_refused_with_what_would_fit() -> None:
    fields = {"prompt": "Hello", "model": "gpt-4o-mini", "max_cost_usd": "0.0001"}
    error = refusal(fields)
    assert (error.field, error.code) == ("max_cost_usd", "budget_exceeded")
    assert "may cost up to 0.00" in error.remedy
    fits = int(error.remedy.rpartition(" ")[2])
    submitter().prepare({**fields, "params": {"max_tokens": fits}})
    assert refusal({**fields, "params": {"max_tokens": fits + 1}}).field == "max_cost_usd"
    assert "shorten the request" in refusal({**fields, "max_cost_usd": "0.000001"}).remedy
    assert "is unknown" in refusal({**fields, "params": {"web_search_options": {"a": 1}}}).remedy


@pytest.mark.parametrize("field", ["max_cost_usd", "max_usd_per_million"])
@pytest.mark.parametrize("usd", ["-1", "1e5", "abc", "", "0.1\n", "1234567890", 1e-13, math.nan])
def test_money_that_is_none_is_refused_with_a_word_of_its_form(field: str, usd: object) -> None:
    error = refusal({"prompt": "Hello", field: usd})
    assert (error.field, error.code) == (field, "invalid_request")
    assert 'give USD as a decimal text such as "0.25"' in error.remedy


def test_a_ticket_says_the_most_that_its_attempt_can_cost() -> None:
    prepared = submitter().prepare({"prompt": "Hello", "model": "gpt-4o-mini"})
    worst = upper_bound_pico_usd(prepared.envelope.request, CATALOG.model("gpt-4o-mini"), CATALOG)
    assert Ticket.decode(prepared.ticket).upper_bound_pico_usd == worst


def test_each_sample_is_a_job_and_only_the_first_is_like_the_plain_request() -> None:
    plain = submitter().prepare("Hello")
    jobs = list(submitter().prepare_many(["Hello", "Hello", "other"], samples=3))
    assert [job.envelope.sample for job in jobs] == [1, 2, 3] * 3
    names = [Ticket.decode(job.ticket).cached_as for job in jobs]
    assert names[:3] == names[3:6]
    assert len(set(names)) == 6
    assert names[0] == Ticket.decode(plain.ticket).cached_as
    assert [orjson.loads(job.encoded)["v"] for job in jobs[:3]] == [1, 2, 2]
    assert len({job.envelope.id for job in jobs}) == 9


def test_each_sample_has_an_idempotency_key_of_its_own() -> None:
    fields = {"prompt": "Hello", "idempotency_key": "k"}
    jobs = list(submitter().prepare_many([fields], samples=3))
    assert [job.envelope.request.idempotency_key for job in jobs] == ["k", "k#2", "k#3"]
    assert len({job.envelope.body_sha256 for job in jobs}) == 1
    long = fields | {"idempotency_key": "k" * 254}
    with pytest.raises(InvalidRequest, match="shorten it") as caught:
        list(submitter().prepare_many([long], samples=2))
    assert caught.value.field == "requests[0].idempotency_key"


@pytest.mark.parametrize("samples", [0, -1, 129, True, 2.0, "3", None])
def test_what_is_no_number_of_samples_is_refused_by_name(samples: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        list(submitter().prepare_many(["Hello"], samples=samples))
    assert (caught.value.field, caught.value.remedy) == (
        "samples", "give a whole number from 1 to 128",
    )  # fmt: skip


def test_samples_of_one_job_and_of_an_embedding_are_refused_by_name() -> None:
    found = refusal({"prompt": "Hello", "samples": 3})
    assert found.field == "samples"
    for remedy in ("submit_many(requests, samples=N)", "--samples N", "line of the file"):
        assert remedy in found.remedy
    with pytest.raises(InvalidRequest) as caught:
        list(submitter().prepare_many([{"input": "Hello", "model": "mistral-embed"}], samples=2))
    assert caught.value.field == "requests[0].samples"


@pytest.mark.parametrize(("n", "times"), [(1, 1), (3, 3)])
def test_several_answers_count_as_many_times_in_ticket_and_upper_bound(n: int, times: int) -> None:
    fields = {"prompt": "Hello", "model": "gpt-4o-mini", "params": {"max_tokens": 100, "n": n}}
    job = submitter().prepare(fields)
    one = submitter().prepare(fields | {"params": {"max_tokens": 100}})
    ticket, single = Ticket.decode(job.ticket), Ticket.decode(one.ticket)
    assert ticket.input_tokens == single.input_tokens
    assert ticket.output_tokens == times * single.output_tokens == times * 100
    assert ticket.upper_bound_pico_usd is not None
    assert single.upper_bound_pico_usd is not None
    more = ticket.upper_bound_pico_usd - single.upper_bound_pico_usd
    assert more == (times - 1) * 100 * 600_000
    assert (ticket.cached_as == single.cached_as) == (n == 1)


def test_the_most_a_job_may_cost_holds_for_all_its_answers() -> None:
    fields = {"prompt": "Hello", "model": "gpt-4o-mini", "max_cost_usd": "0.0002"}
    submitter().prepare(fields | {"params": {"max_tokens": 200}})
    found = refusal(fields | {"params": {"max_tokens": 200, "n": 4}})
    assert (found.field, found.code) == ("max_cost_usd", "budget_exceeded")
    [fits] = re.findall(r"max_tokens of at most (\d+)", found.remedy)
    submitter().prepare(fields | {"params": {"max_tokens": int(fits), "n": 4}})
    refusal(fields | {"params": {"max_tokens": int(fits) + 1, "n": 4}})


def test_claude_is_not_asked_for_several_answers() -> None:
    found = refusal({"prompt": "Hi", "model": "claude-sonnet-5", "params": {"n": 2}})
    assert found.field == "params.n"
    assert "claude-sonnet-5 has nothing like it" in found.remedy
    assert "samples" in found.remedy
    submitter().prepare({"prompt": "Hi", "model": "claude-sonnet-5", "params": {"n": 1}})
    auto = submitter().route({"prompt": "Hi", "params": {"n": 2}, "prefer": "quality"})
    assert CATALOG.provider(CATALOG.model(auto.model)).dialect == "openai"
    assert all("params.n" in one.why_not for one in auto.excluded if one.provider == "anthropic")
    request = Request(prompt="Hi", params={"n": 2}, fallback=["claude-sonnet-5", "gpt-4o"])
    chain = capabilities.chain(request, CATALOG.model("gpt-4o-mini"), CATALOG)
    assert [one.name for one in chain if isinstance(one, Model)] == ["gpt-4o-mini", "gpt-4o"]


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ([], "input"), ([[]], "input[0]"), ([[1], []], "input[1]"), ([-1], "input"),
        ([[1], [2**31]], "input[1]"), ([1, "a"], "input"), ([1.5], "input"), ([True], "input"),
        ([[1], 2], "input"), ({}, "input"),
    ],
)  # fmt: skip
def test_what_is_neither_texts_nor_tokens_is_refused(value: Any, field: str) -> None:
    error = refusal({"input": value, "model": "text-embedding-3-small"})
    assert error.field == field
    assert "token" in error.remedy


def test_tokens_are_counted_exactly_and_bound_the_cost() -> None:
    model = CATALOG.model("text-embedding-3-small")
    for given, count in (([5] * 1000, 1000), ([[5] * 10, [6] * 20], 30)):
        prepared = submitter().prepare({"input": given, "model": model.name})
        assert Ticket.decode(prepared.ticket).input_tokens == count
        bound = upper_bound_pico_usd(prepared.envelope.request, model, CATALOG)
        assert bound is not None
        assert bound >= count * 20_000


def test_large_numbers_pass_in_params_and_are_refused_in_our_own_metadata() -> None:
    large = 12345678901234567890123
    encoded = submitter().prepare({"prompt": "x", "params": {"newest": [large]}}).encoded
    assert b"[12345678901234567890123]" in encoded
    error = refusal({"prompt": "x", "metadata": {"a": [large]}})
    assert (error.field, "give that as a text" in error.remedy) == ("metadata", True)


def test_a_fine_tune_without_a_price_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    ours = submitter()
    for model in ("ft:gpt-4.1:acme::1", "ft:gpt-4.1:acme::1", "gpt-4o-2024-08-06", "gpt-4o"):
        prepared = ours.prepare({"prompt": "x", "model": model})
        variant = CATALOG.model(model).variant_of
        assert prepared.envelope.v == (2 if variant else 1)
        assert Ticket.decode(prepared.ticket).variant_of == variant
    assert [record.getMessage() for record in caplog.records] == [
        "the price of ft:gpt-4.1:acme::1 is unknown: its jobs cost null and count as 0 USD; "
        'add [prices."ft:gpt-4.1:acme::1"] to the catalog'
    ]


def test_auto_chooses_a_model_that_can_carry_the_request() -> None:
    for params, dialect in (({"logprobs": True}, "openai"), ({"thinking": {}}, "anthropic")):
        asked: dict[str, Any] = {"prompt": "x", "model": "auto", "params": params}
        envelope = submitter().prepare(asked).envelope
        assert CATALOG.model(envelope.model).dialect == dialect


def test_fallbacks_that_cannot_carry_the_request_are_refused_if_no_other_is_named() -> None:
    asked = {"prompt": "x", "model": "gpt-4o", "params": {"logprobs": True}}
    error = refusal({**asked, "fallback": ["claude-haiku-4-5"]})
    assert error.field == "fallback"
    assert "a counterpart of params.logprobs" in error.remedy
    assert submitter().prepare({**asked, "fallback": ["claude-haiku-4-5", "gpt-4.1"]})


def test_the_temperature_of_the_settings_gives_way_to_top_p_where_a_model_takes_one() -> None:
    ours = submitter(temperature=0.5)
    for model, given in (("claude-haiku-4-5", {"top_p": 0.2}), ("gpt-4o", {"top_p": 0.2})):
        params = ours.prepare(
            {"prompt": "x", "model": model, "params": given}
        ).envelope.request.params
        assert ("temperature" in params) is (model == "gpt-4o")


@pytest.mark.parametrize(
    ("params", "temperature"),
    [({}, 1), ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, None)],
)
def test_the_temperature_of_the_settings_is_one_that_anthropic_takes(
    params: dict[str, Any], temperature: int | None
) -> None:
    asked = {"prompt": "x", "model": "claude-haiku-4-5", "dialect": "anthropic", "params": params}
    request = submitter(temperature=1.5).prepare(asked).envelope.request
    assert request.params.get("temperature") == temperature


def test_the_temperature_of_the_settings_gives_way_to_reasoning_at_claude() -> None:
    params = {"reasoning_effort": "low"}
    asked = {"prompt": "x", "model": "claude-haiku-4-5", "params": params}
    assert submitter(temperature=0.5).prepare(asked).envelope.request.params == params


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("temprature", "temperature"), ("max_token", "max_tokens"), ("maxTokens", "max_tokens"),
        ("max-tokens", "max_tokens"), ("Temperature", "temperature"), ("topP", "top_p"),
        ("response_fromat", "response_format"), ("tool_choices", "tool_choice"),
        ("temperatura", "temperature"),
    ],
)  # fmt: skip
def test_a_param_with_a_slip_is_refused_with_the_one_that_is_meant(name: str, meant: str) -> None:
    error = refusal({"prompt": "a", "model": "gpt-4o-mini", "params": {name: 1}})
    assert error.field == f"params.{name}"
    assert error.remedy.endswith(f"did you mean params.{meant}?")


@pytest.mark.parametrize(
    "name",
    [
        "min_p", "top_a", "top_n", "best_of", "mirostat", "stop_word", "max_time", "min_length",
        "use_cache", "guided_json", "web_search", "truncation", "safe_prompt", "search_domain",
        "max_completion_tokens", "reasoning", "top_logprobs", "length_penalty", "min_tokens",
    ],
)  # fmt: skip
def test_params_of_other_vendors_pass(name: str) -> None:
    given = {"prompt": "a", "model": "gpt-4o-mini", "params": {name: 1}}
    assert submitter().prepare(given).envelope.request.params == {name: 1}
