"""How a command works on a batch: with a bar, with an eye on the workers, and open to Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from headgate.producer.batch.input import survey
from headgate.producer.batch.output import Output
from headgate.producer.batch.progress import showing
from headgate.producer.batch.rows import Batch
from headgate.producer.batch.run import IN_FLIGHT, Run, queue_all
from headgate.producer.cli.terminal.exit_codes import say
from headgate.producer.cli.terminal.interrupt import Interrupt
from headgate.producer.installation import Installation
from headgate.producer.local.own_worker import OwnWorker
from headgate.shared.errors import Unreachable, WrongUse

_STOPPING = "stopping: what is in flight may finish (Ctrl-C again: at once)"


def follow(
    at: Installation,
    batch: Batch,
    input_path: Path,
    output: Output,
    written: dict[int, bool],
    *,
    max_in_flight: int = IN_FLIGHT,
    tend: Callable[[], None] | None = None,
) -> bool:
    """Every line of the batch has its line of output; False when it was interrupted.

    `tend` looks after workers that the caller runs; without it a worker is started if need be.
    """
    with Interrupt(_STOPPING) as stop, showing(batch.lines, "jobs") as progress:
        attendance = OwnWorker(at, progress.tell, stop.at_once)
        care = attendance.care if tend is None else lambda _: tend()
        run = Run(
            at, batch, input_path, output, progress, stop.wanted, care, written, max_in_flight
        )
        try:
            done = run.submit_and_follow()
            own = attendance.own
        except Unreachable:
            say("what has ended is written; the same command with --resume goes on")
            raise
        finally:
            attendance.stop()
        if not done:
            run.collect()
            output.sync()
            left = "the rest waits" if own else "the jobs go on"
            say(f"interrupted; {left}: the same command with --resume goes on")
        return done


def submit_only(at: Installation, batch: Batch, input_path: Path) -> bool:
    """Every good line of the batch has its job; False when it was interrupted."""
    said = "interrupted; what is queued stays queued"
    with Interrupt(said) as stop, showing(batch.lines, "queued") as progress:
        refused = queue_all(at, batch, input_path, progress, stop.wanted)
    if refused:
        say(f"{refused} of {batch.lines} lines were refused; `batch fetch` writes them too")
    return not stop.wanted()


def fetch_into(at: Installation, batch: Batch, output: Output, *, wait: bool) -> bool:
    """What has ended, or with `wait` the whole batch, is written; False when interrupted."""
    input_path = Path(batch.input_path)
    with Interrupt("interrupted") as stop, showing(batch.lines, "fetched") as progress:
        attendance = OwnWorker(at, progress.tell, stop.at_once, may_start=False)
        run = Run(at, batch, input_path, output, progress, stop.wanted, attendance.care)
        if wait:
            run.follow()
        else:
            run.collect()
        if batch.submitted_at_ms is None:
            say("the batch is not wholly queued; its other lines are not in the output")
        elif batch.bad_lines:
            _write_refused(run, batch, input_path)
        output.sync()
        return not stop.wanted()


def _write_refused(run: Run, batch: Batch, input_path: Path) -> None:
    """The refused lines are written; nobody keeps them but the input itself."""
    try:
        same = survey(input_path).sha256 == batch.input_sha256
    except WrongUse:
        same = False
    if same:
        run.write_refused()
    else:
        say(f"{batch.bad_lines} refused lines are not in the output: {input_path} has changed")
