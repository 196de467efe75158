"""`headgate dead`: letters that could not be read, or whose jobs took too many workers down."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from producer.cli.group import HELP
from producer.cli.show import document, json_option, line, rows

if TYPE_CHECKING:
    from producer.installation import Installation


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter: `ms LF queue LF reason LF raw message` on the broker."""

    raw: bytes

    @property
    def id(self) -> str:
        """What it is called by: a digest of all of it."""
        return hashlib.sha256(self.raw).hexdigest()[:12]

    @property
    def parts(self) -> tuple[int, str, str, bytes]:
        """When it died (Unix ms), its queue, the reason, the message."""
        at_ms, queue, reason, message = [*self.raw.split(b"\n", 3), b"", b"", b""][:4]
        when = int(at_ms) if at_ms.isdigit() else 0
        return when, queue.decode("utf-8", "replace"), reason.decode("utf-8", "replace"), message


@click.group(context_settings=HELP)
def dead() -> None:
    """Dead letters: messages that no worker could read, or that gave up."""


@dead.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List the dead letters, newest first."""
    from shared.envelope import rfc3339

    with _letters() as (_, letters):
        found = []
        for letter in letters:
            at_ms, queue, reason, message = letter.parts
            found.append(
                {
                    "id": letter.id, "died_at": rfc3339(at_ms), "queue": queue, "reason": reason,
                    "bytes": len(message),
                }
            )  # fmt: skip
    if as_json:
        for one in found:
            document(one)
    else:
        rows(("id", "died at", "queue", "reason", "bytes"), [list(one.values()) for one in found])


@dead.command()
@click.argument("ids", metavar="ID...", nargs=-1)
@click.option("--all", "everyone", is_flag=True, help="All of them.")
@json_option
def retry(ids: tuple[str, ...], everyone: bool, as_json: bool) -> None:
    """Put dead letters back on the queues they came from."""
    with _letters() as (at, letters):
        for letter in _chosen(letters, ids, everyone):
            _, queue, _, message = letter.parts
            with at.redis.pipeline(transaction=True) as pipe:
                pipe.lrem(at.keys.dead(), 1, letter.raw)  # type: ignore[arg-type]
                pipe.lpush(at.keys.queue(queue), message)
                pipe.rpush(at.keys.wake(queue), "1")
                pipe.ltrim(at.keys.wake(queue), 0, 0)
                pipe.execute()
            _tell(letter, "retried", f"is on {queue} again", as_json)


@dead.command()
@click.argument("ids", metavar="ID...", nargs=-1)
@click.option("--all", "everyone", is_flag=True, help="All of them.")
@json_option
def drop(ids: tuple[str, ...], everyone: bool, as_json: bool) -> None:
    """Throw dead letters away."""
    with _letters() as (at, letters):
        for letter in _chosen(letters, ids, everyone):
            at.redis.lrem(at.keys.dead(), 1, letter.raw)  # type: ignore[arg-type]
            _tell(letter, "dropped", "is dropped", as_json)


def _tell(letter: Letter, state: str, words: str, as_json: bool) -> None:
    if as_json:
        document({"id": letter.id, "queue": letter.parts[1], "state": state})
    else:
        line(f"{letter.id} {words}")


@contextmanager
def _letters() -> Iterator[tuple[Installation, list[Letter]]]:
    from producer.installation import open_installation

    at = open_installation()
    try:
        with at.reaching():
            raw: list[bytes] = at.redis.lrange(at.keys.dead(), 0, -1)  # type: ignore[assignment]
            yield at, [Letter(letter) for letter in raw]
    finally:
        at.close()


def _chosen(letters: list[Letter], ids: tuple[str, ...], everyone: bool) -> list[Letter]:
    from shared.errors import WrongUse

    if bool(ids) == everyone:
        raise click.UsageError("name some letters by their ids, or say --all")
    if everyone:
        return letters
    known = {letter.id: letter for letter in letters}
    for one in ids:
        if one not in known:
            raise WrongUse("ID", one, "no such dead letter; `headgate dead list` shows them")
    return [known[one] for one in dict.fromkeys(ids)]
