"""The tier of a caller comes from the catalog, from a database table, or from a function."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from sqlalchemy import Engine, delete, insert

from headgate.producer.submit.prepare import Submitter
from headgate.shared.admission import tiers
from headgate.shared.admission.tiers import BoundedTierSource, CachedTierSource
from headgate.shared.catalog.catalog import Catalog, load
from headgate.shared.database import migrate
from headgate.shared.database.engine import open_engine, writing
from headgate.shared.database.tables import callers
from headgate.shared.errors import SettingError
from headgate.shared.settings import Settings
from tests.support.child import wait_until

CATALOG = """
tenants."*".tier = "free"
tenants.acme.tier = "pro"
tenants.plain.rpm = 5
users."acme/boss".tier = "master"
users."a%2Fb/c d".tier = "expert"
"""


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    file = tmp_path / "own.toml"
    file.write_text(CATALOG)
    return load(file)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    opened = open_engine(database_url)
    migrate.upgrade(opened)
    yield opened
    opened.dispose()


@pytest.fixture
def own() -> Iterator[ModuleType]:
    """Return a module of the operator's that can be imported."""
    module = ModuleType("own_tiers")
    sys.modules["own_tiers"] = module
    yield module
    del sys.modules["own_tiers"]


def no_engine() -> Engine:
    raise AssertionError("the database is not needed for this")


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_catalog_knows_users_then_tenants_then_everyone(catalog: Catalog) -> None:
    tier_of = tiers.source("catalog", catalog, no_engine)
    assert tier_of("acme", "boss") == "master"
    assert tier_of("acme", "other") == tier_of("acme", None) == "pro"
    assert tier_of("a/b", "c d") == "expert"
    assert tier_of("plain", None) == tier_of("nobody", "x") == "free"


def test_the_built_in_catalog_gives_nobody_a_tier() -> None:
    assert tiers.source("catalog", load(), no_engine)("acme", "u") is None


def test_a_request_that_names_its_tier_has_that_one(catalog: Catalog) -> None:
    submitter = Submitter(Settings(), catalog, tiers.by_catalog(catalog))

    def tier_of(**fields: str) -> str | None:
        return submitter.prepare({"prompt": "Hello", **fields})[0].request.tier

    assert tier_of(tenant="acme", user="boss") == "master"
    assert tier_of(tenant="acme", user="boss", tier="free") == "free"


def test_a_table_knows_users_then_tenants_and_the_catalog_the_rest(
    engine: Engine, catalog: Catalog
) -> None:
    with writing(engine) as connection:
        connection.execute(insert(callers).values(tenant="acme", tier="expert"))
        connection.execute(insert(callers).values(tenant="acme", user_id="u1", tier="free"))
    tier_of = tiers.source("table", catalog, lambda: engine)
    assert tier_of("acme", "u1") == "free"
    assert tier_of("acme", "u2") == tier_of("acme", None) == "expert"
    assert tier_of("strange", "u1") == "free"


def test_a_change_of_the_table_counts_after_a_second(engine: Engine, catalog: Catalog) -> None:
    tier_of = tiers.source("table", catalog, lambda: engine)
    assert tier_of("plain", "u") == "free"
    with writing(engine) as connection:
        connection.execute(insert(callers).values(tenant="plain", tier="master"))
    wait_until(lambda: tier_of("plain", "u") == "master", 5, "the new tier")
    with writing(engine) as connection:
        connection.execute(delete(callers))
    wait_until(lambda: tier_of("plain", "u") == "free", 5, "the old tier")


def test_a_caller_is_asked_for_once_a_second(catalog: Catalog) -> None:
    asked: list[tuple[str, str | None]] = []
    clock = Clock()

    def tier_of(tenant: str, user: str | None) -> str | None:
        asked.append((tenant, user))
        return "pro"

    kept = CachedTierSource(tier_of, "own:f", tiers.by_catalog(catalog), catalog, clock=clock)
    for _ in range(3):
        assert kept("acme", "u1") == kept("acme", None) == "pro"
    assert asked == [("acme", "u1"), ("acme", None)]
    clock.now += 1
    kept("acme", "u1")
    assert asked[2:] == [("acme", "u1")]


def test_a_function_of_your_own_is_called_with_tenant_and_user(
    own: ModuleType, catalog: Catalog
) -> None:
    own.tier_of = lambda tenant, user: {"u1": "expert"}.get(user)  # type: ignore[attr-defined]  # made up here
    tier_of = tiers.source("own_tiers:tier_of", catalog, no_engine)
    assert tier_of("acme", "u1") == "expert"
    assert tier_of("acme", "u2") == "pro", "None: the catalog decides"


@pytest.mark.parametrize(
    ("gives", "fault"),
    [
        (lambda *_: 1 / 0, "it raised ZeroDivisionError"),
        (lambda *_: 7, "it returned int, not the name of a tier or None"),
        (lambda *_: "gold", "it names the tier 'gold', which the catalog does not have"),
        (lambda: "pro", "it raised TypeError"),
    ],
)
def test_when_a_function_fails_the_catalog_decides_and_it_is_logged_once_a_minute(
    own: ModuleType, catalog: Catalog, caplog: pytest.LogCaptureFixture, gives: object, fault: str
) -> None:
    own.tier_of = gives  # type: ignore[attr-defined]  # made up here
    tier_of = tiers.source("own_tiers:tier_of", catalog, no_engine)
    with caplog.at_level(logging.WARNING, "headgate.tiers"):
        assert tier_of("acme", "secret words") == "pro"
        assert tier_of("acme", "boss") == "master"
    [told] = caplog.messages
    assert told.startswith(f"tiers by own_tiers:tier_of: {fault}")
    assert told.endswith("; the catalog's tier is used")
    assert "secret" not in told


def test_a_function_that_hangs_holds_up_nobody_for_long(
    catalog: Catalog, caplog: pytest.LogCaptureFixture
) -> None:
    go_on = threading.Event()

    def hang(_tenant: str, _user: str | None) -> str | None:
        go_on.wait(60)
        return "pro"

    patient = BoundedTierSource(hang, "own:hang", timeout_s=0.05)
    kept = CachedTierSource(patient, "own:hang", tiers.by_catalog(catalog), catalog)
    with caplog.at_level(logging.WARNING, "headgate.tiers"):
        found = [kept("plain", f"u{n}") for n in range(tiers.MAX_STUCK + 3)]
    assert set(found) == {"free"}
    assert [text.split(": ")[1] for text in caplog.messages] == [
        "it took over 0.05 s; the catalog's tier is used",
        "8 calls of it hang; the catalog's tier is used",
    ]
    go_on.set()
    others = (f"v{n}" for n in range(10_000))
    wait_until(lambda: kept("plain", next(others)) == "pro", 10, "the function to answer again")


def test_many_may_ask_a_slow_function_at_once(catalog: Catalog) -> None:
    together = threading.Barrier(20)

    def slow(_tenant: str, _user: str | None) -> str | None:
        together.wait(60)
        return "pro"

    kept = CachedTierSource(
        BoundedTierSource(slow, "own:slow", timeout_s=60), "own:slow", lambda *_: None, catalog
    )
    found: list[str | None] = []
    threads = [
        threading.Thread(target=lambda n=n: found.append(kept("plain", f"u{n}"))) for n in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    assert found == ["pro"] * 20


@pytest.mark.parametrize(
    ("chosen", "remedy"),
    [
        ("own_tiers:missing", "cannot be imported"),
        ("no.such.module:f", "cannot be imported"),
        ("own_tiers:text", "it is str; name a function of tenant and user"),
    ],
)
def test_a_function_that_cannot_be_found_is_refused_with_the_setting(
    own: ModuleType, catalog: Catalog, chosen: str, remedy: str
) -> None:
    own.text = "pro"  # type: ignore[attr-defined]  # made up here
    with pytest.raises(SettingError, match=remedy) as caught:
        tiers.source(chosen, catalog, no_engine)
    assert (caught.value.field, caught.value.value) == ("HEADGATE_TIERS", chosen)
