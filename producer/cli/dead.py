"""`headgate dead`: messages that could not be read, and jobs that took too many workers down."""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import click

from headgate.producer.cli.commands import HELP
from headgate.producer.cli.terminal.exit_codes import DONE, FAILED, say
from headgate.producer.cli.terminal.output import (
    document,
    json_option,
    line,
    pairs,
    printable,
    rows,
)
from headgate.producer.cli.terminal.session import opened

if TYPE_CHECKING:
    from headgate.producer.admin.dead_letters import DeadLetter, LetterFilter, LetterOutcome
    from headgate.producer.installation import Installation

F = TypeVar("F", bound=Any)

RAW_BYTES = 4096
"""How much of a message `list --json` carries."""

SHOWN_BYTES = 60
"""How much of it the table has."""


def _filters(command: F) -> F:
    for option in (
        click.option("--reason", "reasons", multiple=True, metavar="TEXT",
                     help="Only those whose reason holds this text."),
        click.option("--queue", "queues", multiple=True, metavar="QUEUE",
                     help="Only those that came from this queue."),
    ):  # fmt: skip
        command = option(command)
    return command


def _choice(command: F) -> F:
    all_ = click.option("--all", "everyone", is_flag=True, help="All of them.")
    ids = click.argument("ids", metavar="ID...", nargs=-1)
    return ids(all_(_filters(json_option(command))))


@click.group(context_settings=HELP)
def dead() -> None:
    """Dead letters: messages that no worker could read, and jobs that gave up."""


@dead.command("list")
@_filters
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=50, show_default=True)
@click.option("--before", metavar="ID", help="Only those older than this one: the next page.")
@json_option
def list_(
    queues: tuple[str, ...], reasons: tuple[str, ...], limit: int, before: str | None, as_json: bool
) -> None:
    """List dead letters, newest first. --json has the first 4096 bytes of each message."""
    from headgate.producer.admin import dead_letters as letters
    from headgate.shared.errors import WrongUse
    from headgate.shared.job.ids import rfc3339

    with opened() as at:
        if before is not None and not letters.find(at.redis, at.keys, [before]):
            raise WrongUse("--before", before, "no such dead letter")
        wanted = letters.LetterFilter(queues, reasons)
        found = letters.newest(at.redis, at.keys, wanted, before)
        size = RAW_BYTES if as_json else SHOWN_BYTES
        shown, last = [], ""
        for letter in islice(found, limit):
            start = letters.beginning(at.redis, at.keys, letter, size)
            last = letter.id
            if as_json:
                document(_facts(letter) | _raw(start, letter.size))
            else:
                died_at = rfc3339(letter.died_at_ms)
                words = start.decode("utf-8", "replace")
                shown.append((letter.id, died_at, letter.queue, letter.reason, letter.job_id,
                              letter.size, words))  # fmt: skip
        if not as_json:
            names = ("id", "died at", "queue", "reason", "job", "bytes", "message")
            rows(names, shown, optional=("message", "bytes", "job", "died at"))
        if next(found, None) is not None:
            say(f"there are more: headgate dead list --before {last}")
        if shed := at.redis.hget(at.keys.letters(), "shed"):
            say(f"{int(shed)} older ones were dropped (HEADGATE_DEAD_LETTERS, HEADGATE_DEAD_MB)")


@dead.command()
@click.argument("letter_id", metavar="ID")
@click.option("--raw", is_flag=True, help="The message byte for byte, into a file or a pipe.")
@json_option
def show(letter_id: str, raw: bool, as_json: bool) -> None:
    """Show one dead letter."""
    from headgate.producer.admin import dead_letters as letters
    from headgate.shared.errors import WrongUse

    if raw and sys.stdout.isatty():
        raise WrongUse("--raw", letter_id, "send it to a file or a pipe: it could steer a terminal")
    with opened() as at:
        [letter] = _named(at, [letter_id])
        if raw:
            for part in letters.message(at.redis, at.keys, letter):
                sys.stdout.buffer.write(part)
            return
        start = letters.beginning(at.redis, at.keys, letter, RAW_BYTES)
        facts = _facts(letter) | _raw(start, letter.size)
        if as_json:
            document(facts)
            return
        message = start.decode("utf-8", "backslashreplace")
        more = "..." if letter.size > len(start) else ""
        pairs([
            *((name, printable(str(facts[name]))) for name in list(facts)[:6]),
            ("message", printable(message) + more),
        ])  # fmt: skip


@dead.command()
@_choice
def retry(
    ids: tuple[str, ...], everyone: bool, queues: tuple[str, ...], reasons: tuple[str, ...],
    as_json: bool,
) -> int:  # fmt: skip
    """Put dead letters back on the queues they came from; a job that gave up is queued again."""
    from headgate.producer.admin.dead_letters import retry as act

    with opened() as at:
        return _tell((act(at, one) for one in _chosen(at, ids, everyone, queues, reasons)), as_json)


@dead.command()
@_choice
def drop(
    ids: tuple[str, ...], everyone: bool, queues: tuple[str, ...], reasons: tuple[str, ...],
    as_json: bool,
) -> int:  # fmt: skip
    """Throw dead letters away."""
    from headgate.producer.admin.dead_letters import drop as act

    with opened() as at:
        return _tell((act(at, one) for one in _chosen(at, ids, everyone, queues, reasons)), as_json)


def _tell(done: Iterable[LetterOutcome], as_json: bool) -> int:
    """Each act is told of; the exit code is 1 when one was refused."""
    code = DONE
    for one in done:
        if one.state == "refused":
            code = FAILED
        if as_json:
            letter = one.letter
            document({"id": letter.id, "queue": letter.queue, "state": one.state,
                      "message": one.words})  # fmt: skip
        else:
            line(f"{one.letter.id} {printable(one.words)}")
    return code


def _chosen(
    at: Installation, ids: tuple[str, ...], everyone: bool, queues: tuple[str, ...],
    reasons: tuple[str, ...],
) -> list[DeadLetter]:  # fmt: skip
    """The letters that are meant, the oldest first; those that come later are not."""
    from headgate.producer.admin.dead_letters import LetterFilter, newest

    filtered = bool(queues or reasons)
    if bool(ids) == (everyone or filtered):
        raise click.UsageError("name letters by their ids, or say --all, --queue or --reason")
    if ids:
        return _named(at, ids)
    wanted: LetterFilter = LetterFilter(queues, reasons)
    return list(newest(at.redis, at.keys, wanted, None))[::-1]


def _named(at: Installation, ids: Iterable[str]) -> list[DeadLetter]:
    from headgate.producer.admin.dead_letters import find
    from headgate.shared.errors import WrongUse

    wished = list(dict.fromkeys(ids))
    known = find(at.redis, at.keys, wished)
    for one in wished:
        if one not in known:
            raise WrongUse("ID", one, "no such dead letter; `headgate dead list` shows them")
    return [known[one] for one in wished]


def _facts(letter: DeadLetter) -> dict[str, Any]:
    from headgate.shared.job.ids import rfc3339

    return {
        "id": letter.id, "died_at": rfc3339(letter.died_at_ms), "queue": letter.queue,
        "reason": letter.reason, "job_id": letter.job_id or None, "bytes": letter.size,
    }  # fmt: skip


def _raw(start: bytes, size: int) -> dict[str, Any]:
    """The beginning of a message: as text, or in base64 where it is no UTF-8."""
    cut = size > len(start)
    try:
        return {"raw": start.decode(), "encoding": "text", "cut": cut}
    except UnicodeDecodeError as error:
        if cut and error.start >= len(start) - 3:  # in the middle of a character
            return {"raw": start[: error.start].decode(), "encoding": "text", "cut": True}
        return {"raw": base64.b64encode(start).decode(), "encoding": "base64", "cut": cut}
