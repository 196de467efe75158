"""`headgate submit`, `result`, `cancel`: single jobs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from headgate.producer.cli.terminal.exit_codes import DONE, FAILED, INTERRUPTED
from headgate.producer.cli.terminal.options import finite
from headgate.producer.cli.terminal.output import (
    json_option,
    print_json,
    print_line,
    print_note,
)
from headgate.producer.cli.terminal.request_options import GivenFields, pairs_of, request_options
from headgate.producer.cli.terminal.session import whole_job_id

if TYPE_CHECKING:
    from headgate.producer.client.client import Client
    from headgate.shared.job.result import Result
    from headgate.shared.job.waiting_for import WaitingFor


_TURN_S = 1.0


@click.command()
@click.argument("prompt", required=False)
@click.option("--template", metavar="NAME", help="A prompt of the catalog, instead of PROMPT.")
@click.option(
    "--var", "variables", metavar="K=V", multiple=True,
    help="A variable of the template; repeatable.",
)  # fmt: skip
@request_options
@click.option(
    "--idempotency-key", metavar="K",
    help="Submitting again with this key within 24 h returns the same job.",
)  # fmt: skip
@click.option("--samples", hidden=True)
@click.option("--wait", is_flag=True, help="Wait for the answer and print it.")
@click.option("--stream", is_flag=True, help="Print the answer piece by piece as it arrives.")
@json_option
def submit(
    prompt: str | None,
    wait: bool,
    stream: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Submit PROMPT as a job and print its id or its answer.

    It prints the answer with --wait or --stream. Without PROMPT, or with `-`, it reads the prompt
    from standard input.

    \b
    Example: headgate submit "Summarise the plot of Hamlet" --wait
    """
    from headgate.producer.cli.terminal.servers import open_client

    given = GivenFields.of(options)
    fields = _request_fields(prompt, given, options)
    if stream:
        fields["stream"] = True
    with open_client() as client:
        with given.naming():
            job = client.submit(**fields)
        if stream:
            from headgate.producer.cli.stream import print_stream

            result = print_stream(client, job.id, as_json)
        elif wait:
            result = _wait(client, job.id, None, may_start=True)
        else:
            print_json({"id": job.id}) if as_json else print_line(job.id)
            return DONE
    return INTERRUPTED if result is None else _print(result, as_json, streamed=stream)


def _request_fields(
    prompt: str | None, given: GivenFields, options: dict[str, Any]
) -> dict[str, Any]:
    """Return the fields of the request from the command's options."""
    from headgate.producer.submit.defaults import with_defaults

    variables = options.pop("variables")
    fields = {name: value for name, value in options.items() if value is not None}
    if "template" in fields and "system" in given.fields:
        raise click.UsageError("--system: the template has messages of its own; omit one of them")
    if prompt is not None or "template" not in fields:
        fields["prompt"] = read_prompt(prompt)
    if variables:
        fields["variables"] = _variables(variables)
    return with_defaults(fields, given.fields)


@click.command()
@click.argument("job_id", metavar="ID")
@click.option("--wait", is_flag=True, help="Wait until the job has ended.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    metavar="S",
    help="Wait at most S seconds.",
    callback=finite,
)
@json_option
def result(job_id: str, wait: bool, timeout: float | None, as_json: bool) -> int:
    """Print the answer of the job ID; the beginning of an id is enough.

    The exit code is 1 if the job has not ended, or has not succeeded.

    \b
    Example: headgate result 0192f3c4-... --timeout 30
    """
    from headgate.producer.cli.terminal.servers import open_client

    job_id = whole_job_id(job_id)
    with open_client() as client:
        found = client.result(job_id)
        if not found.ended and (wait or timeout is not None):
            ended = _wait(client, job_id, timeout, may_start=False)
            if ended is None:
                return INTERRUPTED
            found = ended
    return _print(found, as_json)


@click.command()
@click.argument("job_ids", metavar="ID...", nargs=-1, required=True)
@json_option
def cancel(job_ids: tuple[str, ...], as_json: bool) -> int:
    """Cancel jobs, also while the provider is answering.

    The exit code is 1 if a job had ended before, or is still being stopped. Several jobs are
    cancelled together, and `--json` prints a list then.

    \b
    Example: headgate cancel 0192f3c4-... 0192f3c5-...
    """
    from headgate.producer.cli.terminal.servers import open_client

    with open_client() as client:
        found = client.cancel_many([whole_job_id(given) for given in dict.fromkeys(job_ids)])
    if as_json:
        shown = [one.as_json() for one in found]
        print_json(shown if len(job_ids) > 1 else shown[0])
    for one in () if as_json else found:
        if one.status == "cancelled":
            print_line(f"{one.id} is cancelled")
        elif one.ended:
            print_note(f"job {one.id} had ended before: {one.status}")
        else:
            print_note(f"job {one.id} is still {one.status}; its worker will stop it")
    return DONE if all(one.status == "cancelled" for one in found) else FAILED


def _variables(given: Sequence[str]) -> dict[str, str]:
    """Return the variables of a template from `name=value`; raise BadParameter."""
    found: dict[str, str] = {}
    for name, value in pairs_of("--var", given):
        if name in found:
            raise click.BadParameter(f"--var: {name} is given twice")
        found[name] = value
    return found


def read_prompt(prompt: str | None) -> str:
    """Return the prompt from the argument, or from standard input.

    A byte order mark at the start of standard input and its last newline are left out.
    """
    from headgate.shared.errors import WrongUse

    if prompt is not None and prompt != "-":
        return prompt
    if prompt is None and sys.stdin.isatty():
        raise click.UsageError("give a PROMPT, or `-` to read it from standard input")
    try:
        given = sys.stdin.buffer.read().removeprefix(b"\xef\xbb\xbf").decode()
        return given.removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        remedy = f"byte {error.start + 1} is not UTF-8; use text in UTF-8"
        raise WrongUse("standard input", error.object[error.start : error.end], remedy) from None


def _wait(
    client: Client, job_id: str, timeout_s: float | None, *, may_start: bool
) -> Result | None:
    """Wait until the job has ended and return its result; return None if interrupted.

    `may_start`: whether to start a worker if none runs. Raise JobTimeout after `timeout_s`, and
    Unreachable if the database stays away.
    """
    import time
    from functools import partial

    from headgate.producer.cli.terminal.interrupt import Interrupt
    from headgate.producer.errors import JobTimeout
    from headgate.producer.local.own_worker import OwnWorker
    from headgate.producer.reconnect import Reconnect
    from headgate.producer.waits.notes import WaitNotes

    began, notes = time.monotonic(), WaitNotes(print_note)

    def is_over() -> bool:
        return timeout_s is not None and time.monotonic() - began >= timeout_s

    message = f"interrupted; job {job_id} stays queued; wait again: headgate result {job_id} --wait"
    with (
        Interrupt(message) as stop,
        OwnWorker(client.open(), print_note, stop.at_once, may_start=may_start) as workers,
    ):
        reconnect = Reconnect(client.open(), print_note, lambda: stop.requested() or is_over())
        while not stop.requested():
            waited_s = time.monotonic() - began
            turn_s = _TURN_S if timeout_s is None else min(_TURN_S, timeout_s - waited_s)
            try:
                return reconnect(partial(client.result, job_id, timeout_s=max(0.0, turn_s)))
            except JobTimeout as error:
                if timeout_s is not None and is_over():
                    raise JobTimeout(job_id, timeout_s, error.waiting_for) from None
                workers.check(waited_s)
                notes.show(error.waiting_for, time.monotonic() - began)
    return None


def _print(result: Result, as_json: bool, *, streamed: bool = False) -> int:
    if as_json:
        print_json(result.as_json())
    elif result.status == "succeeded":
        _print_answer(result, streamed)
    elif result.error is not None:
        print_note(f"job {result.id} {result.status}: {result.error.code}: {result.error.message}")
    else:
        print_note(f"job {result.id} is {result.status}{_reason(result.waiting_for)}")
    return DONE if result.status == "succeeded" else FAILED


def _reason(waiting_for: WaitingFor | None) -> str:
    """Return what a job waits for in words, after a comma, and what would help."""
    from headgate.shared.job.ids import now_ms

    if waiting_for is None:
        return ""
    return f", {waiting_for.with_help(now_ms())}"


def _print_answer(result: Result, streamed: bool) -> None:
    if result.embeddings is not None:
        print_json(result.embeddings)
        return
    if result.content is not None and not streamed:
        print_line(result.content)
    if result.tool_calls:
        print_json(result.tool_calls)
    elif result.refusal is not None:
        print_note(f"the model refused: {result.refusal}")
    elif result.content is None:  # such as sound, or a call of a function in the old form
        print_json(result.message)
