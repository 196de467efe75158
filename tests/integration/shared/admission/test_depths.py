"""Buckets as providers really keep them are found out and used, by a fleet on a computed clock.

`tests/support/virtual_fleet.py` says what is real there. `python -m tests.bench governor --only
depths` measures all kinds of buckets for minutes.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from headgate.workers.simulator.behaviour import Behaviour
from headgate.workers.simulator.limits import LimitTable, SimulatedLimit
from tests import ROOT
from tests.support.servers import ValkeyServer
from tests.support.virtual_fleet import Fleet, Job, Provider, measured

BEFORE = "4ef1b56"
"""The last commit of the release before this one."""


@pytest.mark.parametrize(
    ("provider", "settle_s", "seconds"),
    [
        (Provider("openai", 1, rpm=2400), 8, 8),
        (Provider("openai", 10, fixed=True, rpm=600), 30, 20),
        (Provider("anthropic", 1, fixed=True, rpm=6000), 14, 5),
        (Provider("anthropic", 10, rpm=600), 30, 20),
    ],
    ids=["openai-1s", "openai-fixed-10s", "anthropic-fixed-1s", "anthropic-10s"],
)
def test_four_workers_find_out_together_how_deep_a_bucket_is_and_use_it(
    valkey: ValkeyServer, provider: Provider, settle_s: float, seconds: float
) -> None:
    with valkey.client(decode_responses=False) as client:
        found = measured(client, provider, settle_s=settle_s, seconds=seconds)
    assert found.share >= 0.97, found
    assert found.refused_per_100 <= 0.5, found


def test_without_headers_a_window_of_a_second_is_used_after_a_minute(valkey: ValkeyServer) -> None:
    provider = Provider("openai", 1, fixed=True, headers="none", rpm=1200)
    with valkey.client(decode_responses=False) as client:
        found = measured(client, provider, settle_s=20, seconds=20)
    assert found.share >= 0.90, found
    assert found.refused_per_100 <= 1, found


def burst(valkey: ValkeyServer, *, is_new: bool) -> tuple[float, int]:
    """Seconds from the submission of a quarter of a minute's worth to the last answer; refusals."""
    limits = SimulatedLimit(rpm=4000, tpm=400_000)
    behaviour = Behaviour(
        latency_ms=1000, limits=LimitTable(limits), burst_s=60, chars_per_token=3.0
    )
    with valkey.client(decode_responses=False) as client:
        fleet = Fleet(
            client, behaviour, pool="openai/gpt-4o-mini", model="gpt-4o-mini",
            limits="rpm=4000 tpm=400000", max_tokens=100,
        )  # fmt: skip
        began_s = 0.0
        if not is_new:
            fleet.submit([Job(400, 400)] * 3)
            began_s = 40.0
            fleet.run_until(began_s)
        ids = fleet.submit([Job(400, 400)] * 200)
        fleet.run_until(began_s + 30)
    ended_s = max(fleet.ended[job_id] for job_id in ids) - fleet.began_s
    return ended_s - began_s, sum(not one.accepted for one in fleet.sent)


def test_a_batch_of_a_quarter_of_a_minute_goes_at_once_where_headers_show_that_it_may(
    valkey: ValkeyServer,
) -> None:
    took_s, refused = burst(valkey, is_new=False)
    assert took_s <= 1.0 + 1.0
    assert refused == 0


def test_a_batch_of_a_quarter_of_a_minute_takes_two_latencies_on_a_new_pool(
    valkey: ValkeyServer,
) -> None:
    took_s, refused = burst(valkey, is_new=True)
    assert took_s <= 2 * 1.0 + 1.0
    assert refused == 0


def test_a_provider_that_cuts_bursts_behind_headers_of_a_minute_refuses_few(
    valkey: ValkeyServer,
) -> None:
    provider = Provider("openai", 1, headers="true", rpm=1200)
    with valkey.client(decode_responses=False) as client:
        found = measured(client, provider, settle_s=10, seconds=10)
    assert found.before <= 12, found
    assert found.refused_per_100 <= 0.5, found
    assert found.share >= 0.95, found


SCRIPTS = ("fetch", "limits_observe", "settle", "defer", "send")

TEXTS = """
import json, sys
from headgate.shared.broker.include import script_text
print(json.dumps({name: script_text(name) for name in sys.argv[1:]}))
"""


@pytest.fixture
def scripts_before(tmp_path: Path) -> dict[str, str]:
    """The scripts of the release before, as git has it."""
    argv = ["git", "archive", BEFORE, "headgate", "producer", "workers", "shared", "migrations"]
    packed = subprocess.run(argv, cwd=ROOT, capture_output=True, check=False)
    if packed.returncode != 0:
        pytest.skip(f"git has no {BEFORE} here: {packed.stderr.decode()}")
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as tree:
        tree.extractall(tmp_path, filter="data")
    told = subprocess.run(
        [sys.executable, "-c", TEXTS, *SCRIPTS], cwd=tmp_path, capture_output=True, check=True
    )
    found: dict[str, str] = json.loads(told.stdout)
    assert "lib/depth" not in found["fetch"]
    return found


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
def test_workers_of_the_release_before_share_buckets_with_todays(
    valkey: ValkeyServer, dialect: str, scripts_before: dict[str, str]
) -> None:
    provider = Provider(dialect, 60, rpm=600)
    with valkey.client(decode_responses=False) as client:
        found = measured(client, provider, settle_s=0, seconds=60, older=scripts_before)
    # Workers of before know bursts of half a second only: what they touch is that deep.
    assert found.share >= 0.45, found
    assert found.refused_per_100 <= 0.5, found
