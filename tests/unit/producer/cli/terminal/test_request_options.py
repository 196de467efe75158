"""The options of a request become its fields, and errors name the option."""

from __future__ import annotations

from typing import Any, get_args

import click
import pytest
from click.testing import CliRunner

from headgate.producer.cli.batch import run as batch_run
from headgate.producer.cli.batch import submit as batch_submit
from headgate.producer.cli.jobs import submit
from headgate.producer.cli.terminal.options import TASKS
from headgate.producer.cli.terminal.request_options import GivenFields, request_options
from headgate.shared.errors import InvalidRequest, WrongUse
from headgate.shared.job.request import REQUEST_FIELDS, Kind, request_from

WANTED = {
    "--deadline", "--cache", "--fallback", "--same-provider", "--task", "--set", "--metadata",
    "--system", "--max-cost-usd", "--model", "--tier", "--on-limit", "--prefer", "--no-cache",
}  # fmt: skip


def given(*arguments: str) -> GivenFields:
    """Return what the options of these arguments give."""
    found: list[GivenFields] = []

    @click.command()
    @request_options
    def command(**options: Any) -> None:
        found.append(GivenFields.of(options))
        assert options == {}, "an option that nobody took"

    end = CliRunner().invoke(command, arguments)
    if end.exception is not None and not isinstance(end.exception, SystemExit):
        raise end.exception
    if end.exit_code:
        raise click.UsageError(end.output)
    return found[0]


@pytest.mark.parametrize("command", [submit, batch_run, batch_submit])
def test_every_command_that_queues_has_the_same_options(command: click.Command) -> None:
    names = {name for option in command.params for name in option.opts}
    assert names >= WANTED


def test_the_tasks_are_those_of_a_request() -> None:
    assert get_args(Kind) == TASKS


def test_options_become_fields() -> None:
    arguments = (
        "--model gpt-4o --deadline 10m --cache exact --no-fallback --same-provider --task code "
        "--set params.temperature=0.2 --set params.stop=END --set cache.ttl_s=60 "
        "--set on_unknown=fail --metadata run=7 --metadata a.b=c --max-cost-usd 0.25 "
        "--max-tokens 9"
    )
    found = given(*arguments.split()).fields
    assert found == {
        "model": "gpt-4o",
        "deadline_s": 600.0,
        "cache": {"mode": "exact", "ttl_s": 60},
        "fallback": False,
        "same_provider": True,
        "task": "code",
        "params": {"temperature": 0.2, "stop": "END"},
        "on_unknown": "fail",
        "metadata": {"run": "7", "a.b": "c"},
        "max_cost_usd": "0.25",
        "max_tokens": 9,
    }
    given(*arguments.split()).check()
    assert set(found) - {"max_tokens"} <= REQUEST_FIELDS


def test_an_option_that_is_not_given_gives_nothing() -> None:
    assert given().fields == {}
    assert given("--fallback").fields == {"fallback": True}
    assert given("--no-cache").fields == {"cache": {"mode": "off"}, "share": False}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("--deadline soon", "--deadline: 'soon': write 90s"),
        ("--deadline 0", "--deadline: 0.0: "),
        ("--max-cost-usd much", "--max-cost-usd: 'much': give USD"),
        ("--set params=3", "--set params: 3: "),
        ("--set params.max_tokens=-1", "--set params.max_tokens: -1: "),
        ("--set temperature=0.2", "--set temperature: 0.2: give it as params.temperature"),
        ("--set fallback=maybe", "--set fallback: 'maybe': "),
        ("--tenant=", "--tenant: '': "),
    ],
)
def test_an_error_about_a_value_names_its_option(arguments: str, named: str) -> None:
    with pytest.raises(WrongUse) as caught:
        given(*arguments.split()).check()
    assert str(caught.value).startswith(named)


@pytest.mark.parametrize(
    "arguments",
    [
        "--set params.x",
        "--set =3",
        "--set params.=3",
        "--metadata x",
        "--cache exact --no-cache",
        "--set model=gpt-4o --model gpt-4o",
        "--metadata a=1 --metadata a=2",
        "--tenant acme --set tenant.x=3",
    ],
)
def test_options_that_make_no_field_are_refused(arguments: str) -> None:
    with pytest.raises(click.UsageError, match=r"--(set|metadata|no-cache)"):
        given(*arguments.split())


def test_only_errors_of_given_fields_name_an_option() -> None:
    fields = given("--model", "x", "--set", "params.top_p=2")
    with pytest.raises(InvalidRequest, match=r"^--model: "), fields.naming():
        raise InvalidRequest("model", "x", "no such model")
    with pytest.raises(InvalidRequest, match=r"^HEADGATE_MODEL: "), fields.naming():
        raise InvalidRequest("HEADGATE_MODEL", "x", "no such model")
    with pytest.raises(InvalidRequest, match=r"^params.seed: "), fields.naming():
        raise InvalidRequest("params.seed", 1, "no")


def test_fields_of_options_are_a_request() -> None:
    fields = given("--set", "params.tools=[]", "--priority", "bulk").fields
    assert request_from({"prompt": "hi", **fields}).priority == "bulk"
