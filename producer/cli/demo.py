"""`make demo`: runs 1,000 example prompts through the whole system on this machine.

    python -m headgate.producer.cli.demo [--live]

It needs no server and no key. It starts the embedded servers, a simulated provider with limits
and faults, and a worker; runs the example batch; checks that the figures add up; and stops
everything. With `--live` it sends 20 prompts to a real provider instead, with the key that is set.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import closing, suppress
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headgate.producer.cli.terminal.exit_codes import (
    DONE,
    FAILED,
    INTERRUPTED,
    WRONG_USE,
    run_command,
)
from headgate.producer.cli.terminal.output import print_line, print_note, print_pairs
from headgate.shared.settings import Settings

if TYPE_CHECKING:
    from headgate.producer.batch.summary import Summary
    from headgate.producer.local.stack import LocalStack

EXAMPLES = Path(__file__).with_name("examples") / "prompts.jsonl"
CLIENTS = Path(__file__).with_name("examples") / "through_gateway.py"
LIVE_LINES = 20
THROUGH_GATEWAY = 100
"""So many of the prompts are asked once more through the gateway, by the vendors' own clients."""

CLIENTS_S = 120.0
"""How long they may take."""

#: The limits of the simulated vendors, which the workers know too. With these figures the limits
#: slow the batch down, as real ones do, and it still ends within ten seconds.
LIMITS = {
    "openai/gpt-4o-mini": {"rpm": 2700, "tpm": 420_000},
    "openai/gpt-4.1-mini": {"rpm": 820, "tpm": 160_000},
    "openai/gpt-4o": {"rpm": 600, "tpm": 120_000},
    "openai/gpt-5.4-mini": {"rpm": 420, "tpm": 90_000},
    "openai/text-embedding-3-small": {"rpm": 600},
    "anthropic/claude-haiku-4-5": {"rpm": 1900, "input_tpm": 150_000, "output_tpm": 240_000},
    "anthropic/claude-sonnet-4": {"rpm": 600, "input_tpm": 60_000, "output_tpm": 90_000},
}
_PATTERN_OF = {"anthropic/claude-sonnet-4": "claude-sonnet-4*"}
_SERVER_END_S = 10.0
_SIMULATOR = ["--latency-ms", "200", "--latency-sigma", "0.5", "--burst-s", "2"]
_FAULTS = ["--fail", "500=0.01,529=0.005"]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--live", is_flag=True, help=f"Send {LIVE_LINES} prompts to a real provider instead.")
def demo(live: bool) -> int:
    """Run the example batch on this machine and show its summary.

    With --live, set OPENAI_API_KEY or ANTHROPIC_API_KEY.
    """
    from headgate.shared import settings

    folder = Path(".headgate").absolute() / "demo"
    in_force = settings.load()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    prompts: Path | None = EXAMPLES
    if live and (prompts := _live_prompts(folder, in_force)) is None:
        print_note("no key is set; set OPENAI_API_KEY or ANTHROPIC_API_KEY, or run without LIVE=1")
        return WRONG_USE
    home = folder / f"home-{os.getpid()}"
    home.mkdir(mode=0o700)
    overlay = None if live else _catalog(home)
    # Fresh servers: the demo must not mix with the user's jobs and limits.
    own = Settings.model_construct(
        **{
            **{name: field.default for name, field in Settings.model_fields.items()},
            "home": home,
            "catalog": overlay,
        }
    )
    try:
        environment = _environment(own, in_force, live)
        return _run(own, prompts or EXAMPLES, folder / "answers.jsonl", environment, live)
    finally:
        _end_server(home)
        shutil.rmtree(home, ignore_errors=True)


def _run(
    own: Settings, prompts: Path, answers: Path, environment: dict[str, str], live: bool
) -> int:
    """Run the batch; return 0 if all figures add up."""
    from headgate.producer.batch.input import scan
    from headgate.producer.batch.output import Output
    from headgate.producer.batch.rows import BatchRows
    from headgate.producer.batch.start import begin
    from headgate.producer.batch.summary import summarise
    from headgate.producer.cli.batch_run import follow
    from headgate.producer.local.stack import LocalStack, gateway_port

    scanned = scan(prompts)
    provider = "" if live else ", with a simulated provider"
    with (
        closing(Output.open(answers, prompts, "overwrite")) as output,
        (own.home_path / "processes.log").open("a", encoding="utf-8", buffering=1) as log,
    ):
        local = LocalStack(
            own,
            notify=print_note,
            on_line=lambda name, text: print(f"{name} | {text}", file=log),
            simulator=None if live else [*_SIMULATOR, *_FAULTS, *_limit_flags()],
            gateway_port=gateway_port(),
            env=environment,
            cwd=own.home_path,
        )
        print_note(f"starting everything on this machine{provider}")
        with local:
            if not local.wait_for_workers() or (at := local.installation) is None:
                print_note(f"the worker did not start; its output:\n{_tail(own.home_path)}")
                return FAILED
            batch, written = begin(BatchRows(at.engine), scanned, output, {})
            if not follow(at, batch, prompts, output, written, restart_dead=local.restart_dead):
                return INTERRUPTED
            summary = summarise(at.engine, at.catalog, BatchRows(at.engine).get(batch.id))
            _print_summary(summary, answers)
            if (code := _adds_up(summary, local.simulator_url)) or live:
                return code
            return _through_gateway(local, prompts, environment)


def _print_summary(summary: Summary, answers: Path) -> None:
    from headgate.producer.cli.terminal.batch_summary import describe

    print_line(f"\nThe answers are in {answers}\n")
    print_pairs(list(describe(summary, str(answers))))
    print_line("")


def _adds_up(summary: Summary, simulator_url: str | None) -> int:
    """Print whether every line has ended and whether the cost is what the simulator billed.

    Return the exit code.
    """
    ended = summary.succeeded + summary.failed
    print_line(
        f"{summary.succeeded} succeeded + {summary.failed} failed = {ended} of {summary.lines}"
    )
    right = ended == summary.lines
    if simulator_url is not None:
        with urllib.request.urlopen(f"{simulator_url}/_stats", timeout=10) as reply:  # noqa: S310
            billed = json.load(reply)["money"]["billed_usd"]
        same = Decimal(billed) == Decimal(summary.cost_usd)
        print_line(
            f"the ledger says {summary.cost_usd} USD, the simulated vendors billed {billed} USD"
        )
        right = right and same
    if not right:
        print_note("the figures do not add up")
    return DONE if right else FAILED


def _through_gateway(local: LocalStack, prompts: Path, environment: dict[str, str]) -> int:
    """Ask some of the prompts with the vendors' clients; return 0 if all were answered."""
    if not local.wait_for_gateway():
        print_note(f"the gateway did not start; its output:\n{_tail(local.settings.home_path)}")
        return FAILED
    words = [str(local.gateway_url), str(prompts), str(THROUGH_GATEWAY)]
    ended = subprocess.run(  # noqa: S603  a program of ours
        [sys.executable, "-P", str(CLIENTS), *words], env=environment, capture_output=True,
        text=True, timeout=CLIENTS_S, check=False,
    )  # fmt: skip
    if ended.returncode:
        print_note(f"the vendors' clients failed:\n{ended.stderr[-2000:]}")
        return FAILED
    said = json.loads(ended.stdout)
    print_line(
        f"through the gateway: {said['answered']} of {said['asked']} answered, {said['openai']} "
        f"by OpenAI's client and {said['anthropic']} by Anthropic's, {said['cached']} from the "
        f"cache, in {said['seconds']} s"
    )
    return DONE if said["answered"] == said["asked"] else FAILED


def _live_prompts(folder: Path, in_force: Settings) -> Path | None:
    """Write the first examples for a vendor whose key is set; return None without a key."""
    if in_force.openai_api_key is not None:
        model = "gpt-4o-mini"
    elif in_force.anthropic_api_key is not None:
        model = "claude-haiku-4-5"
    else:
        return None
    lines = EXAMPLES.read_text(encoding="utf-8").splitlines()
    chosen = [text for text in lines if f'"{model}"' in text][:LIVE_LINES]
    path = folder / "live-prompts.jsonl"
    path.write_text("\n".join(chosen) + "\n", encoding="utf-8")
    return path


def _environment(own: Settings, in_force: Settings, live: bool) -> dict[str, str]:
    """Return the environment of the processes: no settings of the user, except keys if `live`."""
    from headgate.shared import settings

    vendors = ("OPENAI_", "ANTHROPIC_")
    environment = {
        name: value
        for name, value in settings.environment().items()
        if not name.startswith(("HEADGATE_", *vendors))
    }
    environment["HEADGATE_HOME"] = str(own.home)
    if own.catalog is not None:
        environment["HEADGATE_CATALOG"] = str(own.catalog)
    if live:
        for field in Settings.model_fields:
            name, value = settings.variable(field), getattr(in_force, field)
            if name.startswith(vendors) and value is not None:
                secret = getattr(value, "get_secret_value", None)
                environment[name] = secret() if secret else str(value)
    return environment


def _catalog(home: Path) -> Path:
    """Write a catalog file with the limits of the simulated vendors; return its path."""
    path = home / "catalog.toml"
    tables = []
    for pool, limits in LIMITS.items():
        rows = "".join(f"{name} = {amount}\n" for name, amount in limits.items())
        # The simulated vendors cut bursts, whatever their headers show.
        tables.append(f'[pools."{pool}"]\n{rows}burst_s = 1\n')
    path.write_text("\n".join(tables), encoding="utf-8")
    return path


def _limit_flags() -> list[str]:
    """Return the same limits as flags of the simulator."""
    flags = []
    for pool, limits in LIMITS.items():
        amounts = ",".join(f"{name}={amount}" for name, amount in limits.items())
        flags += ["--limit", f"{_PATTERN_OF.get(pool, pool.partition('/')[2])}:{amounts}"]
    return flags


def _end_server(home: Path) -> None:
    """Stop the embedded server of this home now, without its grace period."""
    from headgate.shared.servers import embedded

    found = embedded.processes(home)
    if found is None:
        return
    until = time.monotonic() + _SERVER_END_S
    with suppress(ProcessLookupError):
        os.kill(found.keeper_pid, signal.SIGTERM)
        while time.monotonic() < until:
            os.kill(found.keeper_pid, 0)  # detached, so it is no child that we could wait for
            time.sleep(0.02)


def _tail(home: Path) -> str:
    text = (home / "processes.log").read_text(encoding="utf-8", errors="replace")
    return "\n".join(text.splitlines()[-20:]) or "(no output)"


if __name__ == "__main__":
    sys.exit(run_command(demo, "demo", sys.argv[1:]))
