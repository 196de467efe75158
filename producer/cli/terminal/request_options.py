"""The options of a request: the same for a single job and for the lines of a batch.

`request_options` gives them to a command, and `GivenFields.of` makes fields of a request of them.
An error about one of these fields names the option that gave it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from headgate.producer.cli.terminal.options import (
    MAX_TOKENS,
    MAX_USD_PER_MILLION,
    NO_CACHE,
    PREFER,
    PRIORITY,
    TASK,
    parse_seconds,
)

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--model", help="A model of the catalog, or `auto` (default: HEADGATE_MODEL, else auto)."
    ),
    click.option("--priority", type=PRIORITY, help="The priority (default: standard)."),
    click.option("--tenant", help="The tenant for whom the job runs."),
    click.option("--user", help="The user of the tenant."),
    click.option("--tier", help="The tier of the caller (default: looked up in HEADGATE_TIERS)."),
    click.option(
        "--on-limit",
        type=click.Choice(["wait", "refuse"]),
        help="At a limit of the caller, queue the job (wait) or refuse it (default: wait).",
    ),
    click.option(
        "--system", metavar="TEXT", help="A system message to put in front of the prompt."
    ),
    MAX_TOKENS,
    click.option(
        "--set", "settings", metavar="FIELD=VALUE", multiple=True,
        help="Any field of a request, such as params.temperature=0.2; VALUE is JSON or a text; "
        "repeatable.",
    ),
    click.option(
        "--metadata", metavar="K=V", multiple=True,
        help="What to find again in the result and by `headgate jobs --metadata`; repeatable.",
    ),
    click.option(
        "--deadline", metavar="D",
        help="How long the answer is of use: 90s, 10m, 2h or 7d from when the job is queued "
        "(default: 24h).",
    ),
    click.option("--max-cost-usd", metavar="X",
                 help="Maximum cost of all attempts together in USD."),
    MAX_USD_PER_MILLION,
    PREFER,
    TASK,
    click.option(
        "--fallback/--no-fallback", default=None,
        help="Whether other models may answer if the model cannot (default: yes).",
    ),
    click.option(
        "--same-provider", is_flag=True, default=None,
        help="Fall back only to models of the same provider.",
    ),
    click.option(
        "--cache", type=click.Choice(["exact", "off"]),
        help="Keep the answer in the cache and use a cached one (exact), or do neither (off).",
    ),
    NO_CACHE,
    click.option(
        "--webhook-url", metavar="URL",
        help="Call this URL when the job, or the whole batch, has ended (default: the tenant's).",
    ),
)  # fmt: skip

_PLAIN = (
    "model", "priority", "tenant", "user", "tier", "on_limit", "system", "max_tokens",
    "max_cost_usd", "max_usd_per_million", "prefer", "task", "fallback", "same_provider",
    "webhook_url",
)  # fmt: skip
"""Options whose value is the value of the field of their name."""


def request_options(command: F) -> F:
    """Give the command the options of a request."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


class GivenFields:
    """The fields of a request that options gave.

    `fields` is what `producer/submit/defaults.py` lays under a request: besides fields it may hold
    `max_tokens` and `system`.
    """

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}
        self._options: dict[str, str] = {}

    @classmethod
    def of(cls, options: dict[str, Any]) -> GivenFields:
        """Take the options of a request out of `options`; raise BadParameter for a wrong one."""
        given = cls()
        for name in _PLAIN:
            if (value := options.pop(name)) is not None:
                given.put(name, value, f"--{name.replace('_', '-')}")
        if "max_tokens" in given.fields:
            given._options["params.max_tokens"] = "--max-tokens"
        if (deadline := options.pop("deadline")) is not None:
            given.put("deadline_s", parse_seconds(deadline, "--deadline"), "--deadline")
        if (mode := options.pop("cache")) is not None:
            given.put("cache.mode", mode, "--cache")
        if options.pop("no_cache"):
            given.put("cache.mode", "off", "--no-cache")
            given.put("share", False, "--no-cache")
        for name, text in pairs_of("--metadata", options.pop("metadata")):
            given.put(f"metadata.{name}", text, "--metadata", names=("metadata", name))
        for path, text in pairs_of("--set", options.pop("settings")):
            given.put(path, _json_or_text(text), f"--set {path}")
        return given

    def put(self, path: str, value: Any, option: str, names: Sequence[str] | None = None) -> None:
        """Put the value at the dotted path; raise BadParameter if something is there already.

        `names`: the parts of the path, where a part may hold a dot.
        """
        *parents, last = names or path.split(".")
        if not last or not all(parents):
            raise click.BadParameter(f"{option}: a name is empty; write FIELD=VALUE")
        place = self.fields
        for name in parents:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                raise click.BadParameter(f"{option}: {name} is given as a whole already")
        if last in place or path in self._options:
            other = self.option_of(path) or option
            raise click.BadParameter(f"{option}: {path} is given twice (also by {other})")
        place[last] = value
        self._options[path] = option

    def option_of(self, field: str) -> str | None:
        """Return the option that gave the field, or a part of it; None if none did."""
        for path, option in self._options.items():
            if field == path or field.startswith(f"{path}.") or path.startswith(f"{field}."):
                return option
        return None

    @contextmanager
    def naming(self) -> Iterator[None]:
        """Name the option in each InvalidRequest about a field that an option gave."""
        from headgate.shared.errors import InvalidRequest

        try:
            yield
        except InvalidRequest as error:
            option = self.option_of(error.field)
            if option is None:
                raise
            raise InvalidRequest(option, error.value, error.remedy, error.code) from None

    def check(self) -> None:
        """Raise InvalidRequest, by the name of the option, if a value cannot be right."""
        from headgate.producer.submit.defaults import with_defaults
        from headgate.shared.job.request import request_from

        with self.naming():
            request_from(with_defaults({"prompt": "-"}, self.fields))


def pairs_of(option: str, given: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield name and text of each `name=text`; raise BadParameter for anything else."""
    for one in given:
        name, equals, text = one.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{option}: {one!r}: write NAME=VALUE")
        yield name, text


def _json_or_text(text: str) -> Any:
    import orjson

    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
