"""Routing tells what a prompt is about and how complex it is, for prompts it has never seen too."""

from collections.abc import Iterator
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.shared.routing import router
from headgate.shared.routing.classify import MAX_SCORE, Judgement, judge
from headgate.shared.routing.features import HEAD, TAIL, read
from tests.routing import fit


def judged(text: str, **how: object) -> Judgement:
    return judge(text, router.lexicon(), router.weights(), **how)  # type: ignore[arg-type]


def test_held_out_prompts_are_judged_right(capsys: pytest.CaptureFixture[str]) -> None:
    check = fit.cross_check()
    with capsys.disabled():
        print("\n" + fit.told(check))  # noqa: T201  the confusion matrices are to be seen
    assert fit.accuracy(check.kinds) >= 0.85
    assert fit.accuracy(check.levels) >= 0.7


def test_the_shipped_tables_are_those_that_the_fit_gives() -> None:
    fitted = fit.fit([*fit.labelled("prompts.jsonl"), *fit.labelled("own.jsonl")])
    shipped = router.weights()
    assert shipped.kinds.keys() == fitted.kinds.keys()
    for name, row in shipped.kinds.items():
        assert list(row) == pytest.approx(fitted.kinds[name], abs=0.02), name
    assert shipped.score == pytest.approx(fitted.score, abs=0.02)


@pytest.mark.parametrize(
    ("prompt", "kind"),
    [
        ("Übersetze ins Englische: Der Zug hat Verspätung.", "translation"),
        ("Traduis en allemand : bonne nuit", "translation"),
        ("Traduce al inglés: buenas noches", "translation"),
        (
            "Fasse den Text in zwei Sätzen zusammen: Der Rat tagte lange und vertagte sich.",
            "summary",
        ),
        ("Résume ce texte en une phrase : Le conseil a voté la fermeture du marché.", "summary"),
        ("Haz un resumen de este texto: El consejo votó cerrar el mercado en invierno.", "summary"),
        ("Schreibe ein Gedicht über den Herbst", "creative"),
        ("Écris un poème sur l'automne", "creative"),
        ("Escribe un poema sobre el otoño", "creative"),
        ("Schreibe eine Python-Funktion, die eine Liste sortiert", "code"),
        ("Écris une fonction Python qui trie une liste", "code"),
        ("Escribe una función en Python que ordene una lista", "code"),
        ("Hallo, wie geht es dir?", "chat"),
        ("Bonjour, ça va ?", "chat"),
        ("Hola, ¿qué tal?", "chat"),
    ],
)
def test_plain_cases_are_seen_in_other_languages_too(prompt: str, kind: str) -> None:
    assert judged(prompt).kind == kind


def test_an_image_makes_it_a_task_for_vision_and_the_caller_knows_best() -> None:
    assert judged("Translate the menu", image=True).kind == "vision"
    assert judged("Translate the menu", image=True, kind="translation").kind == "translation"


def test_an_instruction_of_the_system_decides_where_the_prompt_leaves_it_open() -> None:
    said = "The committee met on Monday and agreed to plant eleven trees in spring."
    told = judged(said, instruction="Summarise the text that the user gives, in one sentence.")
    assert told.kind == "summary"


def test_each_judgement_says_which_words_decided() -> None:
    reasons = judged("Translate this sentence to French").reasons
    assert "translate" in reasons[0]
    assert reasons[-1].startswith("complexity ")


@given(st.text(max_size=400))
def test_any_text_is_judged(text: str) -> None:
    assert 0 <= judged(text).score <= MAX_SCORE


@given(st.text(alphabet="ab\n", max_size=300))
def test_only_the_ends_of_a_long_prompt_are_read(middle: str) -> None:
    ends = "Translate this. " + "x" * HEAD, "y" * TAIL
    values = [
        dict(read(f"{ends[0]}{between}{ends[1]}", router.lexicon()).values)
        for between in ("some words", middle + "some words")
    ]
    for found in values:
        found.pop("whole_length")
    assert values[0] == values[1]


def odd() -> Iterator[str]:
    yield from (part * (10_000_000 // len(part)) for part in ('"', "`", "{", "a-", "1,", "a. "))


def test_ten_megabytes_take_no_longer_than_a_page() -> None:
    for text in odd():
        began = process_time()
        judged(text)
        assert process_time() - began < 0.5, text[:2]
