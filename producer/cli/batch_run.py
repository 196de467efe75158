"""How a command works on a batch: it shows a bar, checks the workers and handles Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from headgate.producer.batch.input import scan
from headgate.producer.batch.output import Output
from headgate.producer.batch.progress import showing
from headgate.producer.batch.rows import Batch
from headgate.producer.batch.run import IN_FLIGHT, Run, queue_all
from headgate.producer.cli.terminal.interrupt import Interrupt
from headgate.producer.cli.terminal.output import print_note, visible
from headgate.producer.installation import Installation
from headgate.producer.local.own_worker import OwnWorker
from headgate.shared.errors import Unreachable, WrongUse

_STOPPING = "stopping (press Ctrl-C again to stop at once)"
"""Whether running jobs go on depends on whose worker runs them; a later message says it."""


def follow(
    at: Installation,
    batch: Batch,
    input_path: Path,
    output: Output,
    written: dict[int, bool],
    *,
    max_in_flight: int | None = None,
    restart_dead: Callable[[], None] | None = None,
) -> bool:
    """Run the batch until every line has a line of output; return False if interrupted.

    `restart_dead` supervises the caller's own workers. Without it, a worker is started if none
    runs.
    """
    with (
        Interrupt(_STOPPING) as stop,
        showing(batch.lines, "jobs", print_note, visible) as progress,
    ):
        own_worker = OwnWorker(at, progress.notify, stop.at_once)
        check = own_worker.check if restart_dead is None else lambda _: restart_dead()
        most = max_in_flight or IN_FLIGHT
        run = Run(at, batch, input_path, output, progress, stop.requested, check, written, most)
        try:
            done = run.submit_and_follow()
            started = own_worker.is_started
        except Unreachable:
            print_note("all results so far are written; run the command with --resume to continue")
            raise
        finally:
            own_worker.stop()
        if not done:
            run.collect()
            output.sync()
            rest = "the other jobs wait" if started else "the jobs go on"
            print_note(f"interrupted; {rest}; run the command with --resume to continue")
        return done


def submit_only(at: Installation, batch: Batch, input_path: Path) -> bool:
    """Queue every good line of the batch; return False if interrupted."""
    message = "interrupted; the jobs that are queued stay queued"
    with (
        Interrupt(message) as stop,
        showing(batch.lines, "queued", print_note, visible) as progress,
    ):
        refused = queue_all(at, batch, input_path, progress, stop.requested)
    if refused:
        print_note(
            f"{refused} of {batch.lines} lines {'was' if refused == 1 else 'were'} refused; "
            "`headgate batch fetch` writes an error line for each"
        )
    return not stop.requested()


def fetch_into(at: Installation, batch: Batch, output: Output, *, wait: bool) -> bool:
    """Write the results that are there, or with `wait` all; return False if interrupted."""
    input_path = Path(batch.input_path)
    with (
        Interrupt("interrupted") as stop,
        showing(batch.lines, "fetched", print_note, visible) as progress,
    ):
        workers = OwnWorker(at, progress.notify, stop.at_once, may_start=False)
        run = Run(at, batch, input_path, output, progress, stop.requested, workers.check)
        if wait:
            run.follow()
        else:
            run.collect()
        if batch.submitted_at_ms is None:
            print_note("the batch is still queueing; lines not yet queued are not in the output")
        elif batch.bad_lines:
            _write_refused(run, batch, input_path)
        output.sync()
        return not stop.requested()


def _write_refused(run: Run, batch: Batch, input_path: Path) -> None:
    """Write the error lines of refused lines; they are recorded in the input file only."""
    try:
        same = scan(input_path).sha256 == batch.input_sha256
    except WrongUse:
        same = False
    if same:
        run.write_refused()
    else:
        print_note(
            f"{batch.bad_lines} refused lines are not in the output: {input_path} has changed"
        )
