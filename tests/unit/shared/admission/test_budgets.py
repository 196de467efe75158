"""Budgets of the catalog and of an operator, as scripts and people read them."""

from pathlib import Path

from headgate.shared.admission.budgets import KNOWN, in_force, sources, texts
from headgate.shared.admission.scopes import shown
from headgate.shared.catalog.catalog import load

CATALOG = """
[budget]
usd_per_month = "1000.5"
alerts = []
[tenants."*".budget]
usd_per_day = "5"
hard = 1.0
[tenants."a/b".budget]
usd_per_month = "90"
at_soft = "gpt-4o-mini"
[tenants.plain]
rpm = 5
[users."a%2Fb/u 1".budget]
usd_per_day = "0.000001"
soft = 0.5
"""


def budgets_of(tmp_path: Path) -> dict[str, str]:
    path = tmp_path / "own.toml"
    path.write_text(CATALOG)
    return texts(load(path))


def test_each_scope_has_a_text_and_tenants_those_of_every_tenant_beneath(tmp_path: Path) -> None:
    found = budgets_of(tmp_path)
    assert found.pop(KNOWN)
    assert found == {
        "global": "usd_per_month=1000.5 alerts=-",
        "tenant/*": "usd_per_day=5 hard=1",
        "tenant/a%2Fb": "usd_per_day=5 usd_per_month=90 hard=1 at_soft=gpt-4o-mini",
        "user/a%2Fb/u%201": "usd_per_day=0.000001 soft=0.5",
    }
    assert shown("tenant/a%2Fb") == "tenant/a/b"
    assert shown("user/a%2Fb/u%201") == "user/a%2Fb/u 1"


def test_a_tenant_without_an_entry_has_the_budget_of_every_tenant(tmp_path: Path) -> None:
    found = in_force(budgets_of(tmp_path), {}, "tenant/plain")
    assert found is not None
    assert (found.day, found.hard, found.source) == (5 * 10**12, 1, "tenant/*")
    assert (found.of("20261121"), found.of("202611")) == (5 * 10**12, None)
    assert in_force(budgets_of(tmp_path), {}, "user/plain/u") is None


def test_an_operators_figures_override_the_catalogs(tmp_path: Path) -> None:
    configured = budgets_of(tmp_path)
    overrides = {"tenant/plain": "usd_per_day=7", "tenant/*": "usd_per_day=none rpm=3",
                 "global": "usd_per_month=none", "tenant/x": "rpm=9"}  # fmt: skip
    plain = in_force(configured, overrides, "tenant/plain")
    assert plain is not None
    assert (plain.day, plain.hard, plain.source, plain.is_set) == (
        7 * 10**12, 1, "tenant/plain", True,
    )  # fmt: skip
    assert in_force(configured, overrides, "tenant/x") is None
    assert in_force(configured, overrides, "global") is None
    assert sources(configured, overrides) == ["tenant/a%2Fb", "tenant/plain", "user/a%2Fb/u%201"]
