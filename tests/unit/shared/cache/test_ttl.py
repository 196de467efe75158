"""CacheTtl: how long an answer serves equal requests, and why."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.shared.cache.ttl import CachePolicy, CacheRuleIndex, CacheTtl
from headgate.shared.catalog import catalog
from headgate.shared.catalog.schema import MAX_TTL_S, CacheRule
from headgate.shared.errors import CatalogError
from headgate.shared.job.request import request_from

HOUR, DAY = 3600, 86_400
BUILT_IN = CachePolicy(CacheRuleIndex.of(catalog.load().cache.rules))


def of(prompt: str = "Say hello", policy: CachePolicy = BUILT_IN, **fields: Any) -> CacheTtl:
    words = {} if fields.keys() & {"messages", "input"} else {"prompt": prompt}
    return policy.lifetime(request_from({**words, **fields}))


@pytest.mark.parametrize(
    ("prompt", "ttl_s", "reason"),
    [
        ("Write a limerick about a lighthouse", 1800, "general"),
        ("Who wrote Faust?", DAY, "factual"), ("WHAT IS the boiling point of tin?", DAY, "factual"),
        ("Was bedeutet Fernweh?", DAY, "factual"), ("Qu'est-ce que le quorum ?", DAY, "factual"),
        ("¿Cuál es el río más largo?", DAY, "factual"), ("What\u2019s a quine?", DAY, "factual"),
        ("How to descale a kettle", 7 * DAY, "guides"),
        ("Eine Anleitung zum Löten", 7 * DAY, "guides"),
        ("Comment faire une mayonnaise ?", 7 * DAY, "guides"),
        ("Una guía de la Alhambra", 7 * DAY, "guides"),
        ("What is the weather in Oslo?", HOUR, "weather"),
        ("Wetterberichte für Kiel", HOUR, "weather"),
        ("Quel temps fait-il à Lyon ?", HOUR, "weather"),
        ("What is the weather in Oslo today?", 300, "time-sensitive"),
        ("Wer spielt heute?", 300, "time-sensitive"),
        ("Que se passe-t-il aujourd'hui ?", 300, "time-sensitive"),
        ("¿Qué ponen hoy?", 300, "time-sensitive"),
        ("Was kostet ein Fahrrad?", 300, "prices"), ("the price of tin", 300, "prices"),
        ("Aktienkurse von Stahlwerken", 300, "prices"),
        ("Where is my order?", 0, "user-specific"),
        ("Wo ist meine Bestellung?", 0, "user-specific"),
        ("Où est ma commande ?", 0, "user-specific"),
        ("¿Dónde está mi pedido?", 0, "user-specific"),
    ],
)  # fmt: skip
def test_the_built_in_rules_decide_by_words_and_the_shortest_lifetime_counts(
    prompt: str, ttl_s: int, reason: str
) -> None:
    assert of(prompt) == CacheTtl(ttl_s, reason)


@pytest.mark.parametrize(
    "prompt",
    ["Tell me what is on the way", "Todays", "todayish", "weathering steel", "in my ordering"],
)
def test_a_word_inside_another_is_another_and_a_beginning_counts_at_the_beginning(
    prompt: str,
) -> None:
    assert of(prompt).reason == "general"


def test_the_callers_wish_goes_before_every_rule() -> None:
    order = "Where is my order?"
    assert of("What is today?", cache={"ttl_s": 7}) == CacheTtl(7, "asked")
    assert of(order, cache={"ttl_s": 7}) == CacheTtl(7, "asked")
    assert of(order, cache={"mode": "exact"}) == CacheTtl(1800, "asked")
    assert of("Who wrote Faust?", cache={"mode": "exact"}) == CacheTtl(DAY, "factual")
    assert of(cache={"mode": "off"}) == of(cache={"mode": "off", "ttl_s": 9}) == CacheTtl(0, "off")


@pytest.mark.parametrize(
    ("params", "kept"),
    [
        ({"temperature": 1}, False), ({"temperature": 0.71}, False), ({"temperature": 0.7}, True),
        ({"temperature": 1, "seed": 0}, True), ({"temperature": None}, True), ({}, True),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_meant_to_vary_is_kept_only_if_asked(params: dict[str, Any], kept: bool) -> None:
    assert (of(params=params).ttl_s > 0) == kept
    assert of(params=params, cache={"mode": "exact"}).ttl_s == 1800
    assert of(params=params, cache={"ttl_s": 5}).ttl_s == 5
    assert of(params=params, policy=CachePolicy(temperature=1)).ttl_s > 0
    assert of(input="a", params=params) == CacheTtl(1800, "embedding")


def test_words_count_in_what_the_user_says_and_nowhere_else() -> None:
    system = {"role": "system", "content": "Today is Monday. You know my account."}
    parts = [{"type": "text", "text": "Who plays today?"}, {"type": "image_url"}]
    assert of(messages=[system, {"role": "user", "content": "Hi"}]).reason == "general"
    assert of(messages=[system, {"role": "user", "content": parts}]).reason == "time-sensitive"
    assert of(input="my account") == CacheTtl(1800, "embedding")


def test_in_a_long_text_its_beginning_and_its_end_count() -> None:
    filler = "lorem ipsum " * 5000
    assert of(filler + "today " + filler).reason == "general"
    assert of(filler + "today").reason == of("today " + filler).reason == "time-sensitive"


def rules(**entries: dict[str, Any]) -> CachePolicy:
    return CachePolicy(
        CacheRuleIndex.of({name: CacheRule(**entry) for name, entry in entries.items()})
    )


def test_a_template_goes_before_keywords() -> None:
    policy = rules(
        news={"ttl_s": 60, "keywords": ["today"]}, poems={"ttl_s": 900, "templates": ["poem"]}
    )
    assert of("today", policy, template="poem") == CacheTtl(900, "poems")
    assert of("today", policy, template="other") == CacheTtl(60, "news")


@given(st.text(max_size=60), st.lists(st.sampled_from(["red tape", "^red", "gree*"]), max_size=3))
def test_any_text_has_a_lifetime_and_another_rule_never_makes_it_longer(
    prompt: str, keywords: list[str]
) -> None:
    first = {"ttl_s": 900, "keywords": ["red tape"]}
    asked = prompt + " red tape greenish"
    assert of(asked, rules(a=first)) == CacheTtl(900, "a")
    both = of(asked, rules(a=first, b={"ttl_s": 100, "keywords": keywords}))
    if {"red tape", "gree*"} & {*keywords}:
        assert both == CacheTtl(100, "b")
    else:
        assert both.ttl_s in (100, 900) if keywords else both.ttl_s == 900


def overlaid(folder: Path, text: str) -> catalog.Catalog:
    file = folder / "catalog.toml"
    file.write_text(text)
    return catalog.load(file)


def test_an_overlay_changes_a_rule_key_by_key(tmp_path: Path) -> None:
    models = overlaid(tmp_path, '[cache.rules.weather]\nttl_s = 60\n[cache.rules.tea]\n'
                                'keywords = "tea*"\nttl_s = 5\n')  # fmt: skip
    policy = CachePolicy(CacheRuleIndex.of(models.cache.rules))
    assert of("Will it rain?", policy) == CacheTtl(60, "weather")
    assert of("teapots", policy) == CacheTtl(5, "tea")


@pytest.mark.parametrize(
    ("text", "key", "told"),
    [
        ("cache = 1", "cache", "give a table"),
        ("[cache]\nttl_s = 1", "cache.ttl_s", "unknown key; use one of rules"),
        ("[cache.rules.a]\nkeywords = ['b']", "cache.rules.a.ttl_s", "this key is required"),
        ("[cache.rules.a]\nttl_s = -1", "cache.rules.a.ttl_s", "at least 0"),
        (f"[cache.rules.a]\nttl_s = {MAX_TTL_S + 1}", "cache.rules.a.ttl_s", "at most"),
        ("[cache.rules.a]\nttl_s = '1'", "cache.rules.a.ttl_s", "whole number"),
        ("[cache.rules.a]\nttl_s = 1\nkeyword = 'b'", "cache.rules.a.keyword", "mean keywords?"),
        ("[cache.rules.a]\nttl_s = 1\nkeywords = ['?']", "cache.rules.a.keywords[0]", "words"),
        ("[cache.rules.a]\nttl_s = 1\nkeywords = ['a*b']", "cache.rules.a.keywords[0]", "after"),
        ("[cache.rules.a]\nttl_s = 1\nkeywords = ['a*']", "cache.rules.a.keywords[0]", "three"),
        ("[cache.rules.a]\nttl_s = 1\ntemplates = ['nope']", "cache.rules.a.templates[0]",
         "no such template"),
    ],
)  # fmt: skip
def test_a_wrong_rule_is_refused_by_name(tmp_path: Path, text: str, key: str, told: str) -> None:
    with pytest.raises(CatalogError) as caught:
        overlaid(tmp_path, text)
    assert caught.value.key == key
    assert told in caught.value.remedy


@pytest.mark.parametrize(
    ("cache", "ttl_s", "reason"),
    [
        ({}, 0, "stored"),
        ({"mode": "exact"}, 1800, "asked"),
        ({"ttl_s": 60}, 60, "asked"),
        ({"mode": "off"}, 0, "off"),
    ],
)
def test_what_the_vendor_is_to_store_is_cached_only_where_the_caller_asks_for_it(
    cache: dict[str, Any], ttl_s: int, reason: str
) -> None:
    assert of(params={"store": True}, cache=cache) == CacheTtl(ttl_s, reason)
    assert of(params={"store": False}) == of()
