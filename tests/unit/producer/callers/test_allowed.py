"""What a key allows its caller."""

from __future__ import annotations

import pytest

from headgate.producer.callers import allowed
from headgate.producer.callers.caller import OPEN_CALLER, Caller
from headgate.producer.callers.refused import KeyRefused
from headgate.shared.catalog import catalog

PLAIN = Caller(key_id="k", tenant="acme", user="u1")
ANY_USER = Caller(key_id="k", tenant="acme", any_user=True)
WHOLE_TENANT = Caller(key_id="k", tenant="acme")
ANY_TENANT = Caller(key_id="k", tenant="acme", any_tenant=True, any_user=True)


@pytest.mark.parametrize(
    ("caller", "tenant", "user", "expected"),
    [
        (PLAIN, None, None, ("acme", "u1")),
        (PLAIN, "acme", "u1", ("acme", "u1")),
        (PLAIN, "other", None, "tenant"),
        (PLAIN, None, "u2", "user"),
        (ANY_USER, None, "u2", ("acme", "u2")),
        (ANY_USER, None, None, ("acme", None)),
        (ANY_USER, "other", "u2", "tenant"),
        (WHOLE_TENANT, None, "u2", "user"),
        (ANY_TENANT, "other", "u2", ("other", "u2")),
        (OPEN_CALLER, "other", None, ("other", None)),
        (OPEN_CALLER, None, None, ("default", None)),
    ],
)
def test_a_call_names_a_tenant_and_a_user_where_the_key_allows_it(
    caller: Caller, tenant: str | None, user: str | None, expected: tuple[str, str | None] | str
) -> None:
    if isinstance(expected, tuple):
        assert allowed.identity(caller, tenant, user) == expected
        return
    with pytest.raises(KeyRefused) as error:
        allowed.identity(caller, tenant, user)
    assert (error.value.http_status, error.value.code) == (403, expected)


@pytest.mark.parametrize(
    ("caller", "tenant", "user", "expected"),
    [
        (PLAIN, "acme", "u1", True),
        (PLAIN, "acme", "u2", False),
        (PLAIN, "acme", None, False),
        (PLAIN, "other", "u1", False),
        (ANY_USER, "acme", "u2", True),
        (ANY_USER, "other", None, False),
        (WHOLE_TENANT, "acme", "u2", True),
        (ANY_TENANT, "other", "u2", True),
    ],
)
def test_a_job_is_the_callers_or_not(
    caller: Caller, tenant: str, user: str | None, expected: bool
) -> None:
    assert allowed.owns(caller, tenant, user) is expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gpt-4o-mini", True),
        ("openai/gpt-4o-mini", True),
        ("gpt-4o-mini-2024-07-18", True),
        ("gpt-4o", False),
        ("auto", False),
        ("no-such-model", True),  # submit says better what is wrong
    ],
)
def test_a_key_names_only_its_models(name: str, expected: bool) -> None:
    caller = Caller(models=frozenset({"gpt-4o-mini"}))
    assert allowed.may_use(caller, name, catalog.load(None)) is expected
    if not expected:
        with pytest.raises(KeyRefused, match="does not allow the model"):
            allowed.require_models(caller, [name], catalog.load(None))


def test_a_key_does_what_its_scopes_say() -> None:
    allowed.require_scope(PLAIN, "chat")
    with pytest.raises(KeyRefused, match="scope usage"):
        allowed.require_scope(PLAIN, "usage")
