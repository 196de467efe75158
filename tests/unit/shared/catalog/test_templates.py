"""A template fills in a request, and nothing in it is code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.producer.submit.prepare import Submitter
from headgate.shared.catalog.catalog import Catalog, load
from headgate.shared.catalog.templates import expanded, names_in, rendered
from headgate.shared.errors import InvalidRequest
from headgate.shared.job.envelope import Envelope
from headgate.shared.job.request import Request, request_from
from headgate.shared.settings import Settings

OWN = """
[templates.brief]
prompt = "Say in {words} words what {topic} is. Answer as {{json}}."
model = "gpt-4o"
params = { max_tokens = 50, temperature = 0 }
task = "summary"
description = "A short answer"

[templates.review]
messages = [
  { role = "system", content = "You review {language}." },
  { role = "user", content = [
    { type = "text", text = "{code}" },
    { type = "image_url", image_url = { url = "https://example.org/{page}.png" } },
  ] },
]

[templates.plain]
prompt = "{text}"
"""
BRIEF: dict[str, Any] = {"template": "brief", "variables": {"words": 9, "topic": "a tide"}}


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    file: Path = tmp_path_factory.mktemp("templates") / "own.toml"
    file.write_text(OWN)
    return load(file)


def made(catalog: Catalog, **fields: Any) -> Request:
    return expanded(request_from(fields), catalog.templates)


def refusal(catalog: Catalog, **fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        made(catalog, **fields)
    return caught.value


def test_variables_are_replaced_and_double_braces_are_braces(catalog: Catalog) -> None:
    request = made(catalog, **BRIEF)
    assert request.prompt == "Say in 9 words what a tide is. Answer as {json}."
    assert (request.template, request.variables) == ("brief", {})


def test_a_template_says_what_the_request_does_not(catalog: Catalog) -> None:
    request = made(catalog, **BRIEF)
    assert (request.model, request.task) == ("gpt-4o", "summary")
    assert request.params == {"max_tokens": 50, "temperature": 0}
    own = {"max_completion_tokens": 7, "top_p": 1}
    request = made(catalog, **BRIEF, model="gpt-4.1", task="chat", params=own)
    assert (request.model, request.task) == ("gpt-4.1", "chat")
    assert request.params == {"temperature": 0, **own}


def test_messages_are_replaced_in_all_their_texts(catalog: Catalog) -> None:
    variables = {"language": "C", "code": "if (a) { b(); }", "page": 4}
    request = made(catalog, template="review", variables=variables)
    assert request.messages == [
        {"role": "system", "content": "You review C."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "if (a) { b(); }"},
                {"type": "image_url", "image_url": {"url": "https://example.org/4.png"}},
            ],
        },
    ]


@pytest.mark.parametrize(
    ("changed", "field", "word"),
    [
        ({"template": "breif"}, "template", "did you mean brief?"),
        ({"variables": {"words": 9}}, "variables.topic", "template brief needs it"),
        ({"variables": {}}, "variables.topic", "needs it"),
        (
            {"variables": {"words": 9, "topic": "a", "topics": 1}},
            "variables.topics",
            "it has topic, words; did you mean topic?",
        ),
        ({"prompt": "Hi"}, "prompt", "leave out one"),
        ({"messages": [{"role": "user", "content": "Hi"}]}, "messages", "leave out one"),
        ({"input": "Hi"}, "input", "leave out one"),
        ({"template": None, "prompt": "Hi"}, "variables", "give the template"),
        ({"template": "plain", "variables": {"text": ""}}, "variables", "an empty prompt"),
        ({"variables": {"words": [1], "topic": "a"}}, "variables.words", ""),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    catalog: Catalog, changed: dict[str, Any], field: str, word: str
) -> None:
    error = refusal(catalog, **{**BRIEF, **changed})
    assert error.field.startswith(field)
    assert word in error.remedy


def test_a_request_without_template_is_left_as_it_is(catalog: Catalog) -> None:
    request = Request(prompt="{topic}")
    assert expanded(request, catalog.templates) is request


def test_a_job_travels_with_its_words_and_the_template_s_name(catalog: Catalog) -> None:
    submitter = Submitter(Settings(), catalog)
    envelope, encoded, _ = submitter.prepare(BRIEF)
    read = Envelope.decode(orjson.loads(encoded)).request
    assert read == envelope.request
    assert (read.prompt or "").startswith("Say in 9 words")
    assert (read.template, read.variables, envelope.model) == ("brief", {}, "gpt-4o")


@given(st.text(), st.text())
def test_what_a_variable_holds_is_never_looked_at(one: str, two: str) -> None:
    assert rendered("{a}{{{b}}}{a}", {"a": one, "b": two}) == f"{one}{{{two}}}{one}"


@given(st.text(alphabet="{}ab.!:0[] "))
def test_any_text_is_a_template_or_refused_and_doubled_it_is_itself(text: str) -> None:
    doubled = text.replace("{", "{{").replace("}", "}}")
    assert names_in(doubled) == frozenset()
    assert rendered(doubled, {}) == text
    try:
        names = names_in(text)
    except ValueError:
        return
    rendered(text, dict.fromkeys(names, "x"))
