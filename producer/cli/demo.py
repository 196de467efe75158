"""`make demo`: 1,000 example prompts through everything, on this machine, with nothing set up.

    python -m headgate.producer.cli.demo [--live]

Starts the embedded servers, a simulated provider with limits and faults, and a worker; runs the
example batch; shows that the figures add up; stops everything. `--live` asks a real provider 20
prompts instead, with the key that is set.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
import urllib.request
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headgate.producer.cli.terminal.exit_codes import (
    DONE,
    FAILED,
    INTERRUPTED,
    WRONG_USE,
    carry_out,
    say,
)
from headgate.producer.cli.terminal.output import line, pairs
from headgate.shared.settings import Settings

if TYPE_CHECKING:
    from headgate.producer.batch.summary import Summary

EXAMPLES = Path(__file__).with_name("examples") / "prompts.jsonl"
LIVE_LINES = 20

#: What the simulated vendors allow, and what the workers know of it. Chosen so that the batch is
#: held up by its limits, as real ones are, and yet ends within ten seconds.
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
@click.option("--live", is_flag=True, help=f"Ask a real provider {LIVE_LINES} prompts instead.")
def demo(live: bool) -> int:
    """Run the example batch on this machine and show what it came to."""
    from headgate.shared import settings

    folder = Path(".headgate").absolute() / "demo"
    in_force = settings.load()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    prompts: Path | None = EXAMPLES
    if live and (prompts := _live_prompts(folder, in_force)) is None:
        say("no key is set: set OPENAI_API_KEY or ANTHROPIC_API_KEY, or leave LIVE out")
        return WRONG_USE
    home = folder / f"home-{os.getpid()}"
    home.mkdir(mode=0o700)
    overlay = None if live else _catalog(home)
    # Fresh servers of its own: neither the caller's jobs nor the caller's limits get mixed in.
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
    """The prompts are answered; 0 if all figures add up."""
    from headgate.producer.batch.input import survey
    from headgate.producer.batch.output import Output
    from headgate.producer.batch.rows import BatchRows
    from headgate.producer.batch.start import begin
    from headgate.producer.batch.summary import summarise, words
    from headgate.producer.cli.batch_run import follow
    from headgate.producer.local.stack import LocalStack

    whole = survey(prompts)
    output = Output.open(answers, prompts, "overwrite")
    log = (own.home_path / "processes.log").open("a", encoding="utf-8", buffering=1)
    local = LocalStack(
        own,
        tell=say,
        hear=lambda name, text: print(f"{name} | {text}", file=log),
        simulator=None if live else [*_SIMULATOR, *_FAULTS, *_limit_flags()],
        env=environment,
        cwd=own.home_path,
    )
    say("starting everything on this machine" + ("" if live else ", with a simulated provider"))
    try:
        with local:
            if not local.wait_for_workers() or (at := local.installation) is None:
                say(f"the worker did not come up; its lines:\n{_tail(own.home_path)}")
                return FAILED
            batch, written = begin(BatchRows(at.engine), whole, output, {})
            if not follow(at, batch, prompts, output, written, tend=local.tend):
                return INTERRUPTED
            summary = summarise(at.engine, at.catalog, BatchRows(at.engine).get(batch.id))
            line(f"\nThe answers are in {answers}\n")
            pairs(list(words(summary)))
            line("")
            return _adds_up(summary, local.simulator_url)
    finally:
        log.close()
        output.close()


def _adds_up(summary: Summary, simulator_url: str | None) -> int:
    """Says whether every line has ended and, with a simulator, whether the money is its bill."""
    ended = summary.succeeded + summary.failed
    line(f"{summary.succeeded} succeeded + {summary.failed} failed = {ended} of {summary.lines}")
    right = ended == summary.lines
    if simulator_url is not None:
        with urllib.request.urlopen(f"{simulator_url}/_stats", timeout=10) as reply:  # noqa: S310
            billed = json.load(reply)["money"]["billed_usd"]
        same = Decimal(billed) == Decimal(summary.cost_usd)
        line(f"the ledger says {summary.cost_usd} USD, the simulated vendors billed {billed} USD")
        right = right and same
    if not right:
        say("the figures do not add up")
    return DONE if right else FAILED


def _live_prompts(folder: Path, in_force: Settings) -> Path | None:
    """A file with the first examples for a vendor whose key is set; None without a key."""
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
    """What the processes get: no setting of the caller's but, for the real thing, the keys."""
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
    """A catalog file that tells the workers the simulated vendors' limits."""
    path = home / "catalog.toml"
    tables = []
    for pool, limits in LIMITS.items():
        rows = "".join(f"{name} = {amount}\n" for name, amount in limits.items())
        tables.append(f'[pools."{pool}"]\n{rows}')
    path.write_text("\n".join(tables), encoding="utf-8")
    return path


def _limit_flags() -> list[str]:
    """The same limits as the simulator's flags."""
    flags = []
    for pool, limits in LIMITS.items():
        amounts = ",".join(f"{name}={amount}" for name, amount in limits.items())
        flags += ["--limit", f"{_PATTERN_OF.get(pool, pool.partition('/')[2])}:{amounts}"]
    return flags


def _end_server(home: Path) -> None:
    """The embedded server of this home is down, without waiting for another user of it."""
    from headgate.shared.servers import embedded

    found = embedded.processes(home)
    if found is None:
        return
    until = time.monotonic() + _SERVER_END_S
    with suppress(ProcessLookupError):
        os.kill(found.keeper_pid, signal.SIGTERM)
        while time.monotonic() < until:
            os.kill(found.keeper_pid, 0)  # it is detached: no child of ours to wait for
            time.sleep(0.02)


def _tail(home: Path) -> str:
    text = (home / "processes.log").read_text(encoding="utf-8", errors="replace")
    return "\n".join(text.splitlines()[-20:]) or "(nothing)"


if __name__ == "__main__":
    sys.exit(carry_out(demo, "demo", sys.argv[1:]))
