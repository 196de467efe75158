"""The systemd units: what they name exists, their times fit, systemd accepts them."""

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

WORKER = ROOT / "deploy" / "headgate-worker@.service"
GATEWAY = ROOT / "deploy" / "headgate-gateway.service"
UNITS = pytest.mark.parametrize("unit_file", [WORKER, GATEWAY], ids=lambda path: path.stem)
PROGRAM = "/opt/headgate/bin/headgate"


def entries(unit_file: Path) -> dict[str, list[str]]:
    """Key to its values; no key of these units means different things in two sections."""
    found: dict[str, list[str]] = {}
    for line in unit_file.read_text().splitlines():
        if line and not line.startswith(("#", "[")):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


@UNITS
def test_its_command_and_its_settings_exist(unit_file: Path) -> None:
    unit = entries(unit_file)
    [start] = unit["ExecStart"]
    program, name, *options = start.split()
    assert program == PROGRAM
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    found.make_context(name, list(options))
    known = {variable(field) for field in Settings.model_fields}
    assert {setting.partition("=")[0] for setting in unit["Environment"]} <= known
    assert "HEADGATE_HOME=/var/lib/" + unit["StateDirectory"][0] in unit["Environment"]


@UNITS
def test_it_leaves_a_process_the_time_that_it_may_take(unit_file: Path) -> None:
    unit = entries(unit_file)
    drain_s = float(Settings.model_fields["drain_s"].default)
    assert float(unit["TimeoutStopSec"][0]) > drain_s + LAST_S
    assert (unit["KillMode"], unit["KillSignal"]) == (["mixed"], ["SIGTERM"])


def test_only_a_worker_says_when_it_is_ready_and_that_it_lives() -> None:
    worker, gateway = entries(WORKER), entries(GATEWAY)
    assert float(worker["WatchdogSec"][0]) >= STALE_S
    assert (worker["Type"], gateway["Type"]) == (["notify"], ["exec"])
    assert "WatchdogSec" not in gateway


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
@UNITS
def test_systemd_accepts_it_and_finds_it_well_shut_off(unit_file: Path, tmp_path: Path) -> None:
    here = tmp_path / unit_file.name
    here.write_text(unit_file.read_text().replace(PROGRAM, sys.executable))
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
