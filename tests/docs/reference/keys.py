"""docs/reference/redis-keys.md, from `shared/broker/keys.py`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator

from headgate.shared.broker.keys import Keys
from tests.docs.reference.markdown import document, item, one_line, sentence

INTRO = """
Every key that Headgate uses in Redis or Valkey, with its type, its content and its lifetime.
`HEADGATE_KEY_PREFIX` stands before each. Names in angle brackets vary. Keys without a lifetime
empty themselves when their jobs end.

Read the keys as you like. Never write to them: use the commands instead.
"""


def page() -> str:
    """Return the page."""
    lines = [item(f"`{pattern}`: {words}") for pattern, words in patterns()]
    return document("Redis keys", INTRO, "\n".join(lines))


def patterns() -> Iterator[tuple[str, str]]:
    """Yield each key with its variable parts in angle brackets, and what its docstring says."""
    keys = Keys()
    for name, method in vars(Keys).items():
        if name.startswith("_") or not _returns_text(method):
            continue
        arguments = [f"<{part}>" for part in list(inspect.signature(method).parameters)[1:]]
        yield getattr(keys, name)(*arguments), sentence(one_line(method.__doc__))


def _returns_text(method: object) -> bool:
    if not isinstance(method, Callable):  # type: ignore[arg-type]
        return False
    return inspect.signature(method).return_annotation in ("str", str)  # type: ignore[arg-type]
