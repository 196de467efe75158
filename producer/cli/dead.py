"""`headgate dead`: messages that no worker can read, and jobs that killed too many workers."""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import click

from headgate.producer.cli.commands import HELP
from headgate.producer.cli.terminal import cells
from headgate.producer.cli.terminal.exit_codes import DONE, FAILED, confirm
from headgate.producer.cli.terminal.output import (
    json_option,
    print_json,
    print_line,
    print_note,
    print_pairs,
    print_table,
    printable,
)
from headgate.producer.cli.terminal.session import open_session

if TYPE_CHECKING:
    from headgate.producer.admin.dead_letters import DeadLetter, LetterFilter, LetterOutcome
    from headgate.producer.installation import Installation

F = TypeVar("F", bound=Any)

RAW_BYTES = 4096
"""Bytes of a message that `list --json` prints."""

SHOWN_BYTES = 60
"""Bytes of a message that the table shows."""


def _filters(command: F) -> F:
    for option in (
        click.option("--reason", "reasons", multiple=True, metavar="TEXT",
                     help="Only those whose reason contains this text; repeatable."),
        click.option("--queue", "queues", multiple=True, metavar="QUEUE",
                     help="Only those from this queue; repeatable."),
    ):  # fmt: skip
        command = option(command)
    return command


def _choosing(command: F) -> F:
    all_ = click.option("--all", "everyone", is_flag=True, help="All dead letters.")
    ids = click.argument("ids", metavar="[ID]...", nargs=-1)
    return ids(all_(_filters(json_option(command))))


@click.group(context_settings=HELP)
def dead() -> None:
    """List, show, retry or drop dead letters.

    A dead letter is a message that no worker could read, or the message of a job that was given
    up because too many workers died while they ran it.
    """


@dead.command("list")
@_filters
@click.option(
    "--limit", type=click.IntRange(1, 1_000_000), default=50, show_default=True, metavar="N",
    help="List at most N letters.",
)  # fmt: skip
@click.option("--before", metavar="ID", help="Only letters older than this one: the next page.")
@json_option
def list_(
    queues: tuple[str, ...], reasons: tuple[str, ...], limit: int, before: str | None, as_json: bool
) -> None:
    """List dead letters, the newest first.

    With --json, it prints the first 4096 bytes of each message.

    \b
    Example: headgate dead list --queue headgate.bulk.fast --reason JSON
    """
    from headgate.producer.admin import dead_letters as letters
    from headgate.shared.errors import WrongUse
    from headgate.shared.job.ids import now_ms, rfc3339

    with open_session() as at:
        if before is not None and not letters.find(at.redis, at.keys, [before]):
            raise WrongUse("--before", before, "no such dead letter; run `headgate dead list`")
        wanted = letters.LetterFilter(queues, reasons)
        found = letters.newest(at.redis, at.keys, wanted, before)
        size = RAW_BYTES if as_json else SHOWN_BYTES
        shown, last = [], ""
        for letter in islice(found, limit):
            start = letters.beginning(at.redis, at.keys, letter, size)
            last = letter.id
            if as_json:
                print_json(_facts(letter) | _raw(start, letter.size))
            else:
                died_at = cells.moment(rfc3339(letter.died_at_ms), now_ms())
                message = start.decode("utf-8", "replace")
                shown.append((letter.id, died_at, letter.queue, letter.reason, letter.job_id,
                              letter.size, message))  # fmt: skip
        if not as_json:
            names = ("id", "died at", "queue", "reason", "job", "bytes", "message")
            print_table(names, shown, optional=("message", "bytes", "job", "died at"))
        if next(found, None) is not None:
            print_note(f"there are more; next page: headgate dead list --before {last}")
        if dropped := at.redis.hget(at.keys.letters(), "shed"):
            remedy = "raise HEADGATE_DEAD_LETTERS or HEADGATE_DEAD_MB to keep more"
            print_note(f"{int(dropped)} older letters were dropped; {remedy}")


@dead.command()
@click.argument("letter_id", metavar="ID")
@click.option(
    "--raw", is_flag=True, help="Print only the message, byte for byte, to a file or a pipe."
)
@json_option
def show(letter_id: str, raw: bool, as_json: bool) -> None:
    """Show the dead letter ID: its queue, reason and message.

    \b
    Example: headgate dead show ID --raw > message.json
    """
    from headgate.producer.admin import dead_letters as letters
    from headgate.shared.errors import WrongUse

    if raw and sys.stdout.isatty():
        remedy = "redirect the output to a file or a pipe; the message could control your terminal"
        raise WrongUse("--raw", letter_id, remedy)
    with open_session() as at:
        [letter] = _named(at, [letter_id])
        if raw:
            for part in letters.message(at.redis, at.keys, letter):
                sys.stdout.buffer.write(part)
            return
        start = letters.beginning(at.redis, at.keys, letter, RAW_BYTES)
        facts = _facts(letter) | _raw(start, letter.size)
        if as_json:
            print_json(facts)
            return
        message = start.decode("utf-8", "backslashreplace")
        more = "..." if letter.size > len(start) else ""
        print_pairs([
            *((name, facts[name]) for name in list(facts)[:6]),
            ("message", message + more),
        ])  # fmt: skip


@dead.command()
@_choosing
def retry(as_json: bool, **chosen: Any) -> int:
    """Put dead letters back on the queues they came from.

    Name letters by their ids, or choose them by --all, --queue or --reason. A job that was given
    up is queued again under its id. The exit code is 1 if a letter cannot be retried.

    \b
    Example: headgate dead retry --queue headgate.bulk.fast
    """
    from headgate.producer.admin import dead_letters

    return _apply(dead_letters.retry, as_json, **chosen)


@dead.command()
@_choosing
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
def drop(as_json: bool, yes: bool, **chosen: Any) -> int:
    """Delete dead letters; their messages are lost.

    Name letters by their ids, or choose them by --all, --queue or --reason. Unless you name them,
    the command says how many there are and asks.

    \b
    Example: headgate dead drop --all
    """
    from headgate.producer.admin import dead_letters

    def agree(letters: Sequence[DeadLetter]) -> None:
        if letters and not yes and not chosen["ids"]:
            confirm(f"Delete {_counted(len(letters))}? Their messages are lost.")

    return _apply(dead_letters.drop, as_json, agree, **chosen)


def _counted(count: int) -> str:
    return "1 dead letter" if count == 1 else f"{count} dead letters"


def _apply(
    act: Callable[[Installation, DeadLetter], LetterOutcome],
    as_json: bool,
    agree: Callable[[Sequence[DeadLetter]], None] = lambda _: None,
    **chosen: Any,
) -> int:
    """Act on each chosen letter and print the outcome; return exit code 1 if one was refused.

    `agree` is called first, with all of them; it raises if the user says no.
    """
    code = DONE
    with open_session() as at:
        letters = _choose(at, **chosen)
        agree(letters)
        for letter in letters:
            outcome = act(at, letter)
            if outcome.state == "refused":
                code = FAILED
            if as_json:
                print_json({"id": letter.id, "queue": letter.queue, "state": outcome.state,
                            "message": outcome.text})  # fmt: skip
            else:
                print_line(f"{letter.id} {printable(outcome.text)}")
    return code


def _choose(
    at: Installation, ids: tuple[str, ...], everyone: bool, queues: tuple[str, ...],
    reasons: tuple[str, ...],
) -> list[DeadLetter]:  # fmt: skip
    """Return the chosen letters that exist now, the oldest first; raise UsageError, WrongUse."""
    from headgate.producer.admin.dead_letters import LetterFilter, newest

    filtered = bool(queues or reasons)
    if bool(ids) == (everyone or filtered):
        raise click.UsageError("give ids of letters, or one of --all, --queue and --reason")
    if ids:
        return _named(at, ids)
    wanted: LetterFilter = LetterFilter(queues, reasons)
    return list(newest(at.redis, at.keys, wanted, None))[::-1]


def _named(at: Installation, ids: Iterable[str]) -> list[DeadLetter]:
    from headgate.producer.admin.dead_letters import find
    from headgate.shared.errors import WrongUse

    wanted = list(dict.fromkeys(ids))
    known = find(at.redis, at.keys, wanted)
    for one in wanted:
        if one not in known:
            raise WrongUse("ID", one, "no such dead letter; run `headgate dead list`")
    return [known[one] for one in wanted]


def _facts(letter: DeadLetter) -> dict[str, Any]:
    from headgate.shared.job.ids import rfc3339

    return {
        "id": letter.id, "died_at": rfc3339(letter.died_at_ms), "queue": letter.queue,
        "reason": letter.reason, "job_id": letter.job_id or None, "bytes": letter.size,
    }  # fmt: skip


def _raw(start: bytes, size: int) -> dict[str, Any]:
    """Return the beginning of a message as JSON fields: as text, or in base64 if not UTF-8."""
    cut = size > len(start)
    try:
        return {"raw": start.decode(), "encoding": "text", "cut": cut}
    except UnicodeDecodeError as error:
        if cut and error.start >= len(start) - 3:  # cut in the middle of a character
            return {"raw": start[: error.start].decode(), "encoding": "text", "cut": True}
        return {"raw": base64.b64encode(start).decode(), "encoding": "base64", "cut": cut}
