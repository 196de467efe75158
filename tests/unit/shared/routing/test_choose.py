"""`model: auto`: the cheapest model that can answer, within what the caller allows."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from headgate.shared.catalog import catalog
from headgate.shared.catalog.catalog import Catalog
from headgate.shared.cost.rates import price_lists_of
from headgate.shared.errors import CatalogError, InvalidRequest
from headgate.shared.job.request import request_from
from headgate.shared.routing.choose import ModelStatus
from headgate.shared.routing.router import Route, Router

BUILT_IN = catalog.load()
NOTHING_KNOWN = ModelStatus()
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/gif;base64,AAAA"}}
SEEN = [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, IMAGE]}]
HARD = "Prove rigorously, in depth and step by step, that the halting problem is undecidable; then "
HARD += "derive two corollaries, compare three proofs, and justify each assumption that you make."


def route(
    models: Catalog = BUILT_IN, standing: ModelStatus = NOTHING_KNOWN, **fields: Any
) -> Route:
    if "messages" not in fields and "input" not in fields:
        fields.setdefault("prompt", "Hello, how are you?")
    return Router(models, lambda: standing).route(request_from(fields))


def refused(standing: ModelStatus = NOTHING_KNOWN, **fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        route(BUILT_IN, standing, **fields)
    return caught.value


def overlaid(folder: Path, text: str) -> Catalog:
    file = folder / "catalog.toml"
    file.write_text(text)
    return catalog.load(file)


def quality(name: str) -> int:
    return BUILT_IN.model(name).quality or 0


def test_what_is_easy_goes_to_a_cheap_model_and_what_is_hard_to_a_good_one() -> None:
    easy, hard = route(), route(prompt=HARD)
    assert (easy.level, hard.level) == ("low", "high")
    assert quality(easy.model) < quality(hard.model)
    assert quality(hard.model) >= 8


def test_a_request_in_anthropics_form_is_judged_by_its_user_and_its_system_prompt() -> None:
    said = [{"type": "text", "text": HARD}]
    result = {"type": "tool_result", "tool_use_id": "t", "content": "a result"}
    form: dict[str, Any] = {"dialect": "anthropic", "messages": [
        {"role": "user", "content": said},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f"}]},
        {"role": "user", "content": [result]},
    ]}  # fmt: skip
    assert route(**form).level == "high"
    params = {"system": [{"type": "text", "text": "Translate what you get to German."}]}
    short: dict[str, Any] = {"dialect": "anthropic", "prompt": "A cat.", "params": params}
    assert route(**short).kind == "translation"


def test_it_says_why_and_what_the_runners_up_would_cost() -> None:
    found = route()
    assert any(found.model in reason for reason in found.reasons)
    costs = [Decimal(one.usd) for one in found.runners_up if one.usd is not None]
    assert len(costs) == 5
    assert Decimal(found.usd or 0) <= min(costs)
    assert costs == sorted(costs)


@pytest.mark.parametrize("most", ["0.2", "1", "10"])
def test_no_token_costs_more_than_the_caller_allows(most: str) -> None:
    model = BUILT_IN.model(route(prompt=HARD, prefer="quality", max_usd_per_million=most).model)
    rate = price_lists_of(model, BUILT_IN)[0].rates[-1]
    assert max(rate.input, rate.output).scaleb(6) <= Decimal(most)


def test_a_limit_below_every_price_is_refused_by_its_name() -> None:
    error = refused(max_usd_per_million="0.0001")
    assert error.field == "max_usd_per_million"
    assert "too expensive: gpt-4o-mini" in error.remedy


def test_the_model_has_what_the_request_needs() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    forms: list[tuple[str, dict[str, Any]]] = [
        ("vision", {"messages": SEEN}),
        ("tools", {"params": {"tools": tools}}),
        ("json", {"params": {"response_format": {"type": "json_object"}}}),
    ]
    for capability, fields in forms:
        assert capability in BUILT_IN.model(route(**fields).model).capabilities


def test_the_window_holds_the_prompt() -> None:
    found = route(prompt="word " * 900_000)
    assert BUILT_IN.model(found.model).context_tokens >= 1_000_000


def test_speed_takes_the_fastest_and_quality_the_best() -> None:
    models = [one for one in BUILT_IN.models.values() if one.quality is not None]
    fast, best = route(prefer="speed"), route(prefer="quality")
    assert BUILT_IN.model(fast.model).tokens_per_s == max(m.tokens_per_s or 0 for m in models)
    assert quality(best.model) == max(m.quality or 0 for m in models)


def test_what_is_down_is_left_out_while_something_else_can_do_it() -> None:
    first = route()
    down = frozenset({f"{first.provider}/{first.model}"})
    second = route(standing=ModelStatus(down=down))
    assert second.model == first.runners_up[0].model
    assert (first.model, "down") in {(one.model, one.why_not) for one in second.excluded}


def test_a_job_waits_for_a_model_that_is_down_rather_than_be_refused() -> None:
    down = frozenset(f"{one.provider}/{one.name}" for one in BUILT_IN.models.values())
    found = route(standing=ModelStatus(down=down))
    assert any("down" in reason for reason in found.reasons)


def test_a_provider_without_a_key_is_not_chosen() -> None:
    keyless = frozenset(BUILT_IN.providers) - {"anthropic"}
    wishes: list[dict[str, Any]] = [{}, {"prefer": "quality"}, {"prompt": HARD}]
    for fields in wishes:
        assert route(BUILT_IN, ModelStatus(keyless=keyless), **fields).provider == "anthropic"


def test_vectors_are_never_left_to_chance() -> None:
    assert "text-embedding-3-small" in refused(input="Hello").remedy


def test_a_task_that_the_caller_names_is_taken_for_it() -> None:
    assert route(task="code").kind == "code"


RULES = """
[[routing.rules]]
words = ["purchase order", "PO-Nummer"]
model = "custom-chat"

[[routing.rules]]
kinds = ["translation"]
words = ["gothic"]
model = "gpt-4o"
"""


def test_a_rule_of_the_catalog_sends_its_words_to_its_model(tmp_path: Path) -> None:
    mine = overlaid(tmp_path, RULES)
    found = route(mine, prompt="Where is my Purchase   Order from May?")
    assert found.model == "custom-chat"
    assert "rule 1 of the catalog: the prompt says 'purchase order'" in found.reasons
    assert route(mine, prompt="I purchased an order").model != "custom-chat"
    assert route(mine, prompt="Translate this into Gothic").model == "gpt-4o"
    assert route(mine, prompt="What is gothic rock?").model != "gpt-4o"


def test_a_rule_whose_model_lacks_what_is_needed_is_passed_over(tmp_path: Path) -> None:
    seen = [{"role": "user", "content": [{"type": "text", "text": "This purchase order?"}, IMAGE]}]
    assert route(overlaid(tmp_path, RULES), messages=seen).model != "custom-chat"


@pytest.mark.parametrize(
    ("text", "key", "remedy"),
    [
        (
            '[[routing.rules]]\nwords = ["x"]\nmodel = "gpt-4o-mni"',
            "model",
            "did you mean gpt-4o-mini",
        ),
        ('[[routing.rules]]\nmodel = "gpt-4o"', "routing.rules[0]", "give words or kinds"),
        ('[[routing.rules]]\nkinds = ["poem"]\nmodel = "gpt-4o"', "kinds[0]", "use 'chat'"),
        ('[[routing.rules]]\nword = ["x"]\nmodel = "gpt-4o"', "word", "did you mean words?"),
        ("routing = 1", "routing", "give a table"),
        ('[models."gpt-4o"]\nquality = 11', "quality", "at most 10"),
    ],
)
def test_a_fault_of_the_rules_is_named(tmp_path: Path, text: str, key: str, remedy: str) -> None:
    with pytest.raises(CatalogError) as caught:
        overlaid(tmp_path, text)
    assert key in str(caught.value)
    assert remedy in str(caught.value)
