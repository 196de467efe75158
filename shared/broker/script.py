"""One typed function per Lua script: it names the keys, orders the arguments, reads the reply.

Each returns a `Command`: data, sent by `run` (blocking), `run_async` or a worker's Lane. A script
is sent by its SHA-1; a server that does not know it (new, restarted, failed over) gets its text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar

import redis
import redis.asyncio
from redis.exceptions import NoScriptError

T = TypeVar("T")
Word = str | bytes | int | float


@dataclass(frozen=True, slots=True)
class Command(Generic[T]):
    """One call of one script, ready to be sent; `read` turns the raw reply into T."""

    text: str
    sha: str
    keys: tuple[Word, ...]
    args: tuple[Word, ...]
    read: Callable[[Any], T]

    def by_sha(self) -> tuple[Word, ...]:
        """The words of EVALSHA."""
        return ("EVALSHA", self.sha, len(self.keys), *self.keys, *self.args)

    def by_text(self) -> tuple[Word, ...]:
        """The words of EVAL, for a server that does not know the script yet."""
        return ("EVAL", self.text, len(self.keys), *self.keys, *self.args)


def run(client: redis.Redis, command: Command[T]) -> T:
    """The reply of the command, sent over a blocking client."""
    execute: Callable[..., Any] = client.execute_command
    try:
        return command.read(execute(*command.by_sha()))
    except NoScriptError:
        return command.read(execute(*command.by_text()))


async def run_async(client: redis.asyncio.Redis, command: Command[T]) -> T:
    """The reply of the command, sent over an asyncio client."""
    execute: Callable[..., Any] = client.execute_command
    try:
        return command.read(await execute(*command.by_sha()))
    except NoScriptError:
        return command.read(await execute(*command.by_text()))


_LIMITS = ("lib/prelude", "lib/breaker", "lib/money", "lib/flights", "lib/buckets")

BEFORE = {
    "fetch": (*_LIMITS, "lib/dead_letter", "lib/waiting_room"),
    "breaker_report": ("lib/prelude",),
    "bury": (*_LIMITS, "lib/dead_letter"),
    "forget": (*_LIMITS, "lib/waiting_room"),
    "balance": ("lib/prelude", "lib/money"),
    **dict.fromkeys(("publish", "cache_uses", "cache_drop"), ("lib/prelude", "lib/cache")),
    **dict.fromkeys(("restore", "defer", "reserve", "settle", "limits_observe", "admit"), _LIMITS),
}
"""What stands before a script: the functions that it shares with others."""


@cache
def _script(name: str) -> tuple[str, str]:
    files = (*BEFORE.get(name, ()), name)
    folder = Path(__file__).parent / "lua"
    text = "".join((folder / f"{file}.lua").read_text(encoding="utf-8") for file in files)
    return text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def compose(
    name: str, keys: Iterable[Word], args: Iterable[Word], read: Callable[[Any], T]
) -> Command[T]:
    """The call of the script of this name."""
    text, sha = _script(name)
    return Command(text, sha, tuple(keys), tuple(args), read)


def text_of(value: bytes | str) -> str:
    """A word of a reply as text."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def fields_of(flat: Sequence[Any] | Mapping[Any, Any]) -> dict[str, str]:
    """A hash of a reply as texts."""
    pairs = flat.items() if isinstance(flat, Mapping) else zip(flat[::2], flat[1::2], strict=True)
    return {text_of(name): text_of(value) for name, value in pairs}
