"""What a request needs: a model that lacks it is refused at submit, and left out of chains."""

from pathlib import Path
from typing import Any

import pytest

from headgate.producer.submit.prepare import Submitter
from headgate.shared.catalog import catalog
from headgate.shared.catalog.schema import StaticText
from headgate.shared.errors import InvalidRequest
from headgate.shared.job.request import request_from
from headgate.shared.routing.capabilities import chain, gaps, needs_of
from headgate.shared.settings import Settings

CATALOG = catalog.load()
TOOLS = {"tools": [{"type": "function", "function": {"name": "f"}}]}
JSON = {"response_format": {"type": "json_object"}}
SEEN = [
    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}]}
]


def names(first: str, **fields: Any) -> list[str]:
    request = request_from({"prompt": "x"} | fields if "messages" not in fields else fields)
    found = chain(request, CATALOG.model(first), CATALOG)
    return ["static" if isinstance(one, StaticText) else one.name for one in found]


def refused(**fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        Submitter(Settings(), CATALOG).prepare(fields)
    return caught.value


def test_what_a_request_needs_is_read_from_its_messages_and_params() -> None:
    assert needs_of(request_from({"messages": SEEN})).capabilities == ("vision",)
    assert needs_of(request_from({"prompt": "x", "params": TOOLS})).capabilities == ("tools",)
    assert needs_of(request_from({"prompt": "x", "params": JSON})).capabilities == ("json",)
    assert needs_of(request_from({"prompt": "x"})).capabilities == ()


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
def test_parts_of_an_odd_type_need_nothing(dialect: str) -> None:
    odd = [{"role": "user", "content": [{"type": {}, "text": "x"}]}]
    assert not needs_of(request_from({"messages": odd, "dialect": dialect})).vision


def test_needs_are_read_from_anthropics_form() -> None:
    image = {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [image]}
    tools = {"tools": [{"name": "f", "input_schema": {"type": "object"}}]}
    form = {"type": "json_schema", "schema": {"type": "object"}}

    def needs(*blocks: dict[str, Any], **params: Any) -> tuple[str, ...]:
        messages = [{"role": "user", "content": list(blocks)}]
        fields = {"dialect": "anthropic", "messages": messages, "params": params}
        return needs_of(request_from(fields)).capabilities

    assert needs() == ()
    assert needs(image) == needs(result) == ("vision",)
    assert needs(**tools) == ("tools",)
    assert needs(output_config={"format": form}) == needs(output_format=form) == ("json",)
    assert needs(output_config={"effort": "low"}) == ()


def test_a_prompt_in_anthropics_form_is_checked_as_a_conversation_is() -> None:
    given = {"prompt": "x", "dialect": "anthropic"}
    assert refused(model="gpt-4o", params={"top_k": 1}, **given).field == "params.top_k"
    first = CATALOG.model("claude-haiku-4-5")
    for params, dialects in (({"top_k": 1}, {"anthropic"}), ({}, {"anthropic", "openai"})):
        found = chain(request_from({**given, "params": params}), first, CATALOG)
        assert {getattr(one, "dialect", "") for one in found} == dialects


@pytest.mark.parametrize(
    ("fields", "model", "field", "missing"),
    [
        ({"messages": SEEN}, "command-r7b", "messages", "vision"),
        ({"prompt": "x", "params": TOOLS}, "custom-chat", "params.tools", "tools"),
    ],
)
def test_a_named_model_that_lacks_it_is_refused_with_one_that_has_it(
    fields: dict[str, Any], model: str, field: str, missing: str
) -> None:
    error = refused(model=model, **fields)
    assert (error.field, error.code) == (field, "invalid_request")
    assert f"the model {model} lacks {missing} (capabilities in the catalog)" in error.remedy
    assert "ask one that has it, such as gpt-4o-mini" in error.remedy


def test_stand_ins_that_all_lack_it_are_refused_and_one_that_has_it_is_enough() -> None:
    error = refused(messages=SEEN, model="gpt-4o", fallback=["command-r7b", "command-a"])
    assert error.field == "fallback"
    assert names("gpt-4o", messages=SEEN, fallback=["command-a", "claude-opus-5"]) == [
        "gpt-4o", "claude-opus-5",
    ]  # fmt: skip


def test_a_chain_leaves_out_what_lacks_it() -> None:
    whole = names("claude-opus-5-5")
    assert "deepseek-v4-pro" in whole
    assert "deepseek-v4-pro" not in names("claude-opus-5-5", messages=SEEN)


def test_a_chain_leaves_out_windows_that_are_too_small() -> None:
    long = "word " * 500_000
    assert "ministral-8b-2512" in names("claude-haiku-5-5")
    assert "ministral-8b-2512" not in names("claude-haiku-5-5", prompt=long)


def test_a_capability_that_no_fallback_has_is_reported(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text('[models."gpt-4o-mini"]\nfallback = ["command-r7b"]\n')
    [told] = set(gaps(catalog.load(file))) - set(gaps(CATALOG))
    assert told.startswith("gpt-4o-mini has vision, and none of its fallbacks has it")


def test_a_chain_may_stay_with_one_provider() -> None:
    assert names("gpt-4o-mini") == ["gpt-4o-mini", "gpt-4o", "claude-haiku-4-5"]
    assert names("gpt-4o-mini", same_provider=True) == ["gpt-4o-mini", "gpt-4o"]
