"""How Lua scripts are called.

Each script has one typed function beside its users. The function names the keys, orders the
arguments and reads the reply. It returns a `Command`, which is data: `run` sends it over a blocking
client, `run_async` over an asyncio client, and workers send it in batches. A script is sent by its
SHA-1. A server that does not know it (new, restarted, failed over) gets the whole text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, TypeVar

import redis
import redis.asyncio
from redis.exceptions import NoScriptError, RedisError

from headgate.shared.broker.include import script_text

T = TypeVar("T")
Word = str | bytes | int | float


@dataclass(frozen=True, slots=True)
class Command(Generic[T]):
    """One call of one script. `read` turns the raw reply into T.

    With a `head` of n, a script takes n args and then those of any number of jobs; it replies with
    an item for each. Commands that have their heads in common may be sent as one call; `read` gets
    a list of the one item.
    """

    text: str
    sha: str
    keys: tuple[Word, ...]
    args: tuple[Word, ...]
    read: Callable[[Any], T]
    head: int | None = None

    @property
    def tail_at(self) -> int:
        """Where the words of the one job begin in `by_sha` and `by_text`; 0: it goes alone."""
        return 0 if self.head is None else 3 + len(self.keys) + self.head

    def by_sha(self) -> tuple[Word, ...]:
        """Return the words of EVALSHA."""
        return ("EVALSHA", self.sha, len(self.keys), *self.keys, *self.args)

    def by_text(self) -> tuple[Word, ...]:
        """Return the words of EVAL, for a server that does not know the script yet."""
        return ("EVAL", self.text, len(self.keys), *self.keys, *self.args)


def run(client: redis.Redis, command: Command[T]) -> T:
    """Send the command over a blocking client; return its reply. Raise RedisError."""
    execute: Callable[..., Any] = client.execute_command
    try:
        return command.read(execute(*command.by_sha()))
    except NoScriptError:
        return command.read(execute(*command.by_text()))


def run_all(client: redis.Redis, commands: Sequence[Command[T]]) -> list[T]:
    """Send all calls in one round trip; return their replies. Raise RedisError.

    A call of a script that the server does not know yet is sent again, after the others.
    """
    with client.pipeline(transaction=False) as pipe:
        execute: Callable[..., Any] = pipe.execute_command
        for command in commands:
            execute(*command.by_sha())
        replies = pipe.execute(raise_on_error=False)
    found = []
    for command, reply in zip(commands, replies, strict=True):
        if isinstance(reply, NoScriptError):
            found.append(run(client, command))
        elif isinstance(reply, RedisError):
            raise reply
        else:
            found.append(command.read(reply))
    return found


async def run_async(client: redis.asyncio.Redis, command: Command[T]) -> T:
    """Send the command over an asyncio client; return its reply. Raise RedisError."""
    execute: Callable[..., Any] = client.execute_command
    try:
        return command.read(await execute(*command.by_sha()))
    except NoScriptError:
        return command.read(await execute(*command.by_text()))


@cache
def _script(name: str) -> tuple[str, str]:
    text = script_text(name)
    return text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def compose(
    name: str, keys: Iterable[Word], args: Iterable[Word], read: Callable[[Any], T]
) -> Command[T]:
    """Return the call of the script of this name."""
    text, sha = _script(name)
    return Command(text, sha, tuple(keys), tuple(args), read)


def compose_joinable(
    name: str, head: Sequence[Word], words: Iterable[Word], read: Callable[[Any], T]
) -> Command[T]:
    """Return the call of a script that serves many jobs, for one of them; see `Command.head`.

    `read` turns the job's item of the reply into T.
    """
    text, sha = _script(name)
    return Command(text, sha, (), (*head, *words), lambda reply: read(reply[0]), len(head))


def text_of(value: bytes | str) -> str:
    """Decode a word of a reply."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def fields_of(flat: Sequence[Any] | Mapping[Any, Any]) -> dict[str, str]:
    """Decode a hash of a reply."""
    pairs = flat.items() if isinstance(flat, Mapping) else zip(flat[::2], flat[1::2], strict=True)
    return {text_of(name): text_of(value) for name, value in pairs}
