"""deploy/headgate-worker@.service: what it names exists, its times fit, systemd accepts it."""

import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from headgate.producer.cli.commands import cli
from headgate.shared.servers.liveness import STALE_S
from headgate.shared.settings import Settings, variable
from headgate.workers.celery.shutdown import LAST_S
from tests import ROOT

UNIT = ROOT / "deploy" / "headgate-worker@.service"
PROGRAM = "/opt/headgate/bin/headgate"


def entries() -> dict[str, list[str]]:
    """Key to its values; no key of this unit means different things in two sections."""
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        if line and not line.startswith(("#", "[")):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def test_its_command_and_its_settings_exist() -> None:
    unit = entries()
    [start] = unit["ExecStart"]
    program, name, *options = start.split()
    assert program == PROGRAM
    worker = cli.get_command(click.Context(cli), name)
    assert worker is not None
    worker.make_context(name, list(options))
    known = {variable(field) for field in Settings.model_fields}
    assert {setting.partition("=")[0] for setting in unit["Environment"]} <= known
    assert "HEADGATE_HOME=/var/lib/" + unit["StateDirectory"][0] in unit["Environment"]


def test_it_leaves_a_worker_the_time_that_it_may_take() -> None:
    unit = entries()
    drain_s = float(Settings.model_fields["drain_s"].default)
    assert float(unit["TimeoutStopSec"][0]) > drain_s + LAST_S
    assert float(unit["WatchdogSec"][0]) >= STALE_S
    assert (unit["Type"], unit["KillMode"], unit["KillSignal"]) == (
        ["notify"],
        ["mixed"],
        ["SIGTERM"],
    )


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_systemd_accepts_it_and_finds_it_well_shut_off(tmp_path: Path) -> None:
    here = tmp_path / UNIT.name
    here.write_text(UNIT.read_text().replace(PROGRAM, sys.executable))
    for question in (["verify"], ["security", "--offline=yes", "--threshold=20", "--no-pager"]):
        ended = subprocess.run(
            ["systemd-analyze", *question, str(here)],  # noqa: S607  # wherever it is installed
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert ended.stderr == ""
