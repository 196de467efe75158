"""An operator's figures override the catalog's, figure by figure."""

from headgate.shared.admission.overrides import Figure, overlay, texts_of

CONFIGURED = {"tenant/a": "rpm=10 tpm=500", "tenant/*": "rpm=1 concurrent=2"}
OVERRIDES = {"tenant/a": "rpm=20 tpm=none", "tenant/*": "concurrent=9", "tenant/b": "rpm=3"}


def in_force(scope: str) -> dict[str, str]:
    figures = overlay(*texts_of(CONFIGURED, OVERRIDES, scope))
    return {name: figure.text for name, figure in figures.items()}


def test_a_figure_says_whether_an_operator_has_set_it() -> None:
    assert overlay("rpm=10 alerts=0.8,1", "rpm=20") == {
        "rpm": Figure("20", True), "alerts": Figure("0.8,1", False),
    }  # fmt: skip


def test_none_lifts_a_limit() -> None:
    assert in_force("tenant/a") == {"rpm": "20"}


def test_a_tenant_without_an_entry_has_the_figures_of_every_tenant() -> None:
    assert in_force("tenant/b") == {"rpm": "3", "concurrent": "9"}
    assert in_force("tenant/c") == {"rpm": "1", "concurrent": "9"}


def test_a_scope_that_nobody_limits_has_no_figures() -> None:
    assert in_force("user/a/u") == {}
