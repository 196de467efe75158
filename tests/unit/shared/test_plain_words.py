"""Whatever is wrong in a request, a setting or a catalog, no word of pydantic reaches the user."""

import math
import re
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from headgate.shared import settings
from headgate.shared.catalog import catalog
from headgate.shared.errors import WrongUse
from headgate.shared.job.request import Request, request_from

THEIRS = re.compile(
    r"Input|should |[Vv]alid |Assertion|instance of|Value error|Tuple|parsing|pydantic"
)

VALUES: list[Any] = [
    None, True, 1, -1, 1.5, math.nan, math.inf, "", "x", "a" * 300, "\x00", "\ud800", b"x", [], [1],
    ["x"], [None], [[1]], [["x"]], {}, {"a": 1}, {"a": []}, {1: 2}, object(), {1}, (1,),
    Decimal("1.2"), 10**30, timedelta(1),
]  # fmt: skip

TEXTS = ["x", "-1", "nan", "inf", "1e400", "9" * 30, "\x01", "1.5", "true", "[]", "{}", " "]

TABLES = {
    "providers.x": (
        "dialect", "base_url", "api_key_env", "api_key_optional", "stream_usage",
    ),
    "models.m": (
        "provider", "class", "pool", "context_tokens", "max_output_tokens", "capabilities",
        "fallback", "timeout_s", "source", "checked", "quality", "tokens_per_s", "provider_name",
    ),
    'pools."openai/x"': ("rpm", "tpm", "concurrent", "burst_s", "ramp_from"),
    "tiers.t": ("rpm", "lockout_s", "lockout_after", "models"),
    "prices.p": ("input", "output", "cached_input"),
    "tenants.t": ("tier", "rpm", "budget", "weight"),
    "templates.t": ("prompt", "model", "messages"),
    "limits": ("rpm",), "budget": ("usd_per_day", "soft"), "cache": ("rules",),
    "routing": ("rules",),
}  # fmt: skip

TOML = ["1", "-1", "1.5", "nan", "inf", '"x"', '""', "true", "[]", "[1]", '["x"]', "{}", "{a=1}",
        "2026-01-01", "[{}]", "[{a=1}]"]  # fmt: skip


def remedies(ask: Callable[[], object]) -> list[str]:
    """The remedies of what is refused; none if it is taken."""
    try:
        ask()
    except WrongUse as error:
        return [one.remedy for one in getattr(error, "errors", (error,))]
    return []


@pytest.mark.parametrize("field", Request.model_fields)
def test_a_field_of_a_request(field: str) -> None:
    own = {} if field in ("messages", "input", "template") else {"prompt": "a"}
    found = [remedies(partial(request_from, {**own, field: value})) for value in VALUES]
    assert [text for texts in found for text in texts if THEIRS.search(text)] == []


@pytest.mark.parametrize("field", settings.Settings.model_fields)
def test_a_setting(field: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = []
    for text in TEXTS:
        monkeypatch.setenv(settings.variable(field), text)
        found += remedies(settings.load)
    assert [text for text in found if THEIRS.search(text)] == []


@pytest.mark.parametrize("table", TABLES)
def test_a_key_of_a_catalog(table: str, tmp_path: Path) -> None:
    path, found = tmp_path / "own.toml", []
    for key in TABLES[table]:
        for value in TOML:
            path.write_text(f"[{table}]\n{key} = {value}\n")
            found += remedies(lambda: catalog.load(path))
    assert found
    assert [text for text in found if THEIRS.search(text)] == []
