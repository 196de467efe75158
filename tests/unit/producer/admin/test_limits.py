"""What an operator writes for a scope and its limits: read as meant, or refused with a remedy."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.producer.admin.limits import amounts_of, scope_of, shown
from headgate.shared.admission.limits import parsed, written
from headgate.shared.catalog import catalog
from headgate.shared.errors import WrongUse

CATALOG = catalog.load()
POOL = "openai/gpt-4o-mini"

WRONG = {
    "unknown scope": (["room/x", "rpm=1"], "no such scope"),
    "no scope": (["pool/", "rpm=1"], "no such scope"),
    "keys": (["keys/openai", "n=1"], "no such scope"),
    "unknown pool": (["pool/openai/gpt-4o-mini-", "rpm=1"], "did you mean openai/gpt-4o-mini?"),
    "pool without provider": (["pool/gpt-4o-mini", "rpm=1"], "did you mean openai/gpt-4o-mini?"),
    "unknown provider": (["provider/opnai", "rpm=1"], "did you mean openai?"),
    "unknown tier": (["tier/nonsense", "rpm=1"], "no tier nonsense"),
    "user without tenant": (["user/u1", "rpm=1"], "user/TENANT/NAME"),
    "long tenant": ([f"tenant/{'x' * 129}", "rpm=1"], "1 to 128"),
    "unknown measure": (["global", "rps=1"], "rps"),
    "zero": (["global", "rpm=0"], "rpm: '0'"),
    "negative": (["global", "rpm=-5"], "rpm: '-5'"),
    "no number": (["global", "rpm=nan"], "rpm: 'nan'"),
    "infinite": (["global", "tpm=inf"], "tpm: 'inf'"),
    "absurd": (["global", "tpm=1e30"], "tpm: '1e30'"),
    "a part of a call": (["global", "rpm=1.5"], "whole"),
    "no value": (["global", "rpm"], "rpm=600"),
    "twice": (["global", "rpm=1", "rpm=2"], "twice"),
    "weight of a pool": ([f"pool/{POOL}", "weight=2"], "only tenants"),
    "nothing": (["global"], "MEASURE=VALUE"),
    "empty name": (["tenant/", "rpm=1"], "no such scope"),
}


@pytest.mark.parametrize(("arguments", "fault"), WRONG.values(), ids=WRONG.keys())
def test_an_invalid_limit_is_refused_with_the_remedy(arguments: list[str], fault: str) -> None:
    scope, *amounts = arguments
    with pytest.raises(WrongUse) as raised:
        amounts_of(scope_of(scope, CATALOG), amounts)
    assert fault in str(raised.value)


names = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=128)


@given(names)
def test_any_tenant_has_a_scope_and_is_shown_by_its_name(name: str) -> None:
    written_as = f"tenant/{name}"
    assert shown(scope_of(written_as, CATALOG)) == written_as


@given(names, names)
def test_the_shown_scope_of_a_user_can_be_used_again(tenant: str, user: str) -> None:
    scope = f"user/{tenant.replace('%', '%25').replace('/', '%2F')}"
    scope = scope_of(f"{scope}/{user.replace('%', '%25').replace('/', '%2F')}", CATALOG)
    assert scope_of(shown(scope), CATALOG) == scope


@given(st.dictionaries(st.sampled_from(["rpm", "tpm", "rpd"]), st.integers(1, 10**8), min_size=1))
def test_the_scripts_read_the_limits_that_were_set(given_: dict[str, int]) -> None:
    amounts = amounts_of("global", [f"{name}={n}" for name, n in given_.items()])
    assert parsed(written(amounts)) == given_
