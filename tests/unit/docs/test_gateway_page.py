"""The pages of the gateway name every status, header and address that the gateway has."""

from __future__ import annotations

import re

import pytest

from headgate.producer.dialects.errors import ERRORS
from headgate.producer.gateway import openapi
from headgate.producer.gateway.calls import headers, own_fields
from headgate.producer.gateway.routes import routes
from tests import ROOT

JOBS_PAGE = (ROOT / "docs" / "jobs-over-http.md").read_text(encoding="utf-8")
PAGE = (ROOT / "docs" / "gateway.md").read_text(encoding="utf-8")
MALFORMED = {405, 408, 422, 431}
"""Statuses of calls that no library makes. The page of all errors has them."""


def headers_in(path: str) -> set[str]:
    """The headers of ours that a file names."""
    text = (ROOT / path).read_text(encoding="utf-8")
    return set(re.findall(r"x-headgate-[a-z-]*[a-z]", text))


def test_it_names_every_status() -> None:
    statuses = {kind.status for kind in ERRORS.values()}
    statuses |= {kind.status_at_anthropic for kind in ERRORS.values()} - {0}
    rows = re.findall(r"^\| ([\d, ]+) \|", PAGE, re.M)
    named = {int(status) for row in rows for status in row.split(", ")}
    assert statuses - MALFORMED == named


@pytest.mark.parametrize("module", [headers, openapi], ids=lambda module: module.__name__)
def test_it_names_every_header(module: object) -> None:
    path = str(getattr(module, "__file__", "")).partition("/producer/")[2]
    missing = headers_in(f"producer/{path}") - headers_in("docs/gateway.md")
    assert missing == set()


def test_every_header_that_it_names_is_read_or_sent() -> None:
    sent = headers_in("producer/gateway/calls/headers.py")
    code = (ROOT / "producer/gateway/calls/own_fields.py").read_text(encoding="utf-8")
    for name in headers_in("docs/gateway.md") - sent - {"x-headgate-detach"}:
        short = name.removeprefix(own_fields.PREFIX)
        assert f'"{short}"' in code, name


def test_it_names_every_address() -> None:
    named = set(re.findall(r"`(?:GET |POST |DELETE )?(/[^`]*)`", PAGE + JOBS_PAGE))
    for route in routes():
        path = route.path.replace("{name:path}", "NAME").replace("{id}", "ID")
        assert path in named or path == "/v1/health", path
