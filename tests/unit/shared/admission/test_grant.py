"""Grants: each text that the scripts write is read as the kind that it is."""

import pytest

from headgate.shared.admission.grant import (
    Cached,
    CallerTerms,
    Cheaper,
    Elsewhere,
    Grant,
    Held,
    Late,
    ModelDown,
    NoTicket,
    OverBudget,
    Shared,
    TooLarge,
    decode,
    terms_of,
)

HELD = (
    "held|openai/gpt-4o|gpt-4o|key1|a|1|100|20|acme|ann|pro|pwb7|1795000000000|5||300||"
    "9@tenant/acme:20261121|job:1:1|pool/openai/gpt-4o"
)
TERMS = CallerTerms("pro", paid=True)


def unheld(kind: str, flags: str = "p", *money: str) -> str:
    """Write a grant without a hold, as fetch.lua and money.lua do."""
    words = (kind, "openai/gpt-4o", "gpt-4o", "", "o", "0", "0", "0", "acme", "ann", "pro", flags)
    return "|".join((*words, *money))


def test_a_hold_is_read_with_all_that_it_holds() -> None:
    grant = decode(HELD)
    assert grant == Held(
        text=HELD, model="gpt-4o", pool="openai/gpt-4o", key="key1", rule="a", settles=True,
        input_tokens=100, output_tokens=20, granted_at_ms=1_795_000_000_000,
        totals={"rpm": 5, "input_tpm": 300}, money="9@tenant/acme:20261121", probe="7",
        waits=True, terms=TERMS,
    )  # fmt: skip


def test_a_hold_of_release_0_1_has_no_money() -> None:
    words = HELD.split("|")
    grant = decode("|".join([*words[:17], *words[18:]]))
    assert isinstance(grant, Held)
    assert (grant.money, grant.tokens) == ("", (100, 20))


@pytest.mark.parametrize(
    ("text", "grant"),
    [
        ("", NoTicket()),
        (unheld("cached"), Cached("gpt-4o", TERMS)),
        (unheld("shared"), Shared("gpt-4o", TERMS)),
        (unheld("late"), Late(TERMS)),
        (unheld("elsewhere"), Elsewhere("gpt-4o", False, TERMS)),
        (unheld("elsewhere", "prw$7"), Elsewhere("gpt-4o", True, TERMS)),
        (unheld("broken"), ModelDown("gpt-4o", None, False, TERMS)),
        (unheld("broken", "pw"), ModelDown("gpt-4o", None, True, TERMS)),
        (unheld("too large", ""), TooLarge("gpt-4o", CallerTerms("pro"))),
        (unheld("cheaper", "p", "tiny"), Cheaper("tiny", TERMS)),
        (
            unheld("over budget", "p", "tenant/acme:202611:10:12:9:2:4"),
            OverBudget("gpt-4o", "tenant/acme", "202611", 10, 12, 9, 2, 4, TERMS),
        ),
        (
            unheld("over budget", "p", "global:20261121:10:12:0:0:"),
            OverBudget("gpt-4o", "global", "20261121", 10, 12, 0, 0, None, TERMS),
        ),
    ],
    ids=lambda value: value.split("|")[0] if isinstance(value, str) else type(value).__name__,
)
def test_every_other_kind_has_only_what_it_is_about(text: str, grant: Grant) -> None:
    assert decode(text) == grant
    assert terms_of(decode(text)) == (CallerTerms() if not text else grant.terms)  # type: ignore[union-attr]  # only NoTicket has none


def test_an_unknown_kind_is_a_fault() -> None:
    with pytest.raises(ValueError, match="unknown kind 'sold out'"):
        decode(unheld("sold out"))
