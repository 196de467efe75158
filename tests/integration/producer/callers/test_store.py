"""Keys in both databases: created, found by their secrets, rotated and revoked."""

import pytest
from sqlalchemy import Engine, select

from headgate.producer.callers import store
from headgate.producer.callers.keys import SECRET, sha256_of
from headgate.producer.callers.store import NewKey
from headgate.shared.database.engine import reading
from headgate.shared.database.tables import gateway_keys
from headgate.shared.errors import WrongUse
from headgate.shared.job.ids import now_ms


def test_a_new_key_is_found_by_its_secret_which_is_not_on_record(engine: Engine) -> None:
    new = NewKey(
        "web", "acme", any_user=True, tier="free", scopes=("jobs", "chat"),
        models=("gpt-4o-mini",), rpm=60, tpm=9000, budget_usd="5", budget_period="day",
        origins=("https://app.example.com",), expires_at_ms=now_ms() + 60_000,
    )  # fmt: skip
    key, secret = store.create(engine, new)
    assert SECRET.fullmatch(secret)
    found = store.find(engine, sha256_of(secret))
    assert found == key == store.show(engine, key.id)
    assert (key.caller.tenant, key.caller.any_user, key.caller.tier) == ("acme", True, "free")
    assert sorted(key.caller.scopes) == ["chat", "jobs"]
    assert sorted(key.caller.models or ()) == ["gpt-4o-mini"]
    assert key.state(now_ms()) == "good"
    with reading(engine) as connection:
        row = connection.execute(select(gateway_keys)).one()
    assert secret not in repr(row)
    assert secret not in repr(key)
    assert store.find(engine, sha256_of(secret + "x")) is None


def test_keys_of_no_value_are_stored_as_such(engine: Engine) -> None:
    key, _ = store.create(engine, NewKey("plain"))
    assert key.caller.models is None
    assert key.caller.scopes == {"chat", "embeddings", "jobs"}
    assert (key.caller.user, key.caller.rpm, key.caller.origins) == (None, None, frozenset())


def test_both_secrets_are_good_in_the_grace_of_a_rotation(engine: Engine) -> None:
    key, first = store.create(engine, NewKey("web"))
    key, second = store.rotate(engine, key.id, 60_000)
    for secret in (first, second):
        found = store.find(engine, sha256_of(secret))
        assert found == key
        assert found.opens_with(sha256_of(secret), now_ms())
    assert not key.opens_with(sha256_of(first), now_ms() + 60_000)
    key, third = store.rotate(engine, key.id, 0)
    assert store.find(engine, sha256_of(first)) is None
    assert store.find(engine, sha256_of(second)) is None
    assert store.find(engine, sha256_of(third)) == key


def test_a_revoked_key_stays_on_record_and_cannot_be_rotated(engine: Engine) -> None:
    key, secret = store.create(engine, NewKey("web"))
    revoked = store.revoke(engine, key.id)
    assert store.revoke(engine, key.id) == revoked
    found = store.find(engine, sha256_of(secret))
    assert found is not None
    assert found.state(now_ms()) == "revoked"
    with pytest.raises(WrongUse, match="revoked; create a new one"):
        store.rotate(engine, key.id, 0)
    assert [one.id for one in store.all_keys(engine)] == [key.id]


def test_an_unknown_id_is_refused_by_name(engine: Engine) -> None:
    for act in (store.show, store.revoke, lambda at, key_id: store.rotate(at, key_id, 0)):
        with pytest.raises(WrongUse, match="hgk_nobody"):
            act(engine, "hgk_nobody")
