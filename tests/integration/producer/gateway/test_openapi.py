"""schemathesis asks the gateway whatever its OpenAPI description allows, and what it does not."""

from __future__ import annotations

import json
import re
import sys
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from headgate.producer.gateway.routes import routes
from tests import ROOT
from tests.support.child import BUSY
from tests.support.command import program
from tests.support.gateway import House, house
from tests.support.servers import Simulator, ValkeyServer

FUZZ_S = 25

CONFIG = """
hooks = "tests.support.schemathesis_hooks"

[checks.not_a_server_error]
# 504: a deadline that is over before the provider answers
expected-statuses = ["2xx", "4xx", "504"]
"""


@pytest.fixture
def at(
    valkey: ValkeyServer,
    sqlite_url: str,
    simulator_factory: Callable[..., Simulator],
    tmp_path: Path,
) -> Iterator[House]:
    with house(valkey, sqlite_url, simulator_factory(), tmp_path) as found:
        yield found


@pytest.mark.slow
def test_no_request_by_or_against_the_description_finds_a_fault(at: House, tmp_path: Path) -> None:
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG)
    argv = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"]
    argv += ["--config-file", str(config), "run", f"{at.gateway.url}/openapi.json"]
    argv += ["--checks", "not_a_server_error", "--max-time", str(FUZZ_S), "--seed", "16"]
    argv += ["--request-timeout", str(20 * BUSY), "--phases", "coverage,fuzzing"]
    env = {"PYTHONPATH": str(ROOT)}
    ended = program(argv, env, cwd=tmp_path, timeout_s=FUZZ_S * 3, fresh=True)
    assert ended.code == 0, ended.out[-6000:] + ended.err[-2000:]
    assert at.simulator.stats()["accepted"] > 0, "no call was a good one"


def test_the_description_names_each_address(at: House) -> None:
    with urllib.request.urlopen(f"{at.gateway.url}/openapi.json", timeout=5 * BUSY) as reply:  # noqa: S310 (loopback)
        described = json.load(reply)
    assert described["openapi"].startswith("3.")
    left_out = {"/v1/health", "/openapi.json", "/docs"}  # the same as another, and the description

    def plain(paths: Iterable[str]) -> set[str]:
        return {re.sub(r"{[^}]*}", "{}", path) for path in paths}

    served = plain({route.path for route in routes()} - left_out)
    assert plain(described["paths"]) == served
