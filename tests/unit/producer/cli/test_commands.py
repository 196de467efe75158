"""`headgate --help`: each command in a group, with a whole sentence."""

from __future__ import annotations

from click.testing import CliRunner

from headgate.producer.cli.commands import COMMANDS, GROUPS, cli


def test_every_command_stands_in_one_group() -> None:
    named = [name for names in GROUPS.values() for name in names]
    assert len(named) == len(set(named))
    assert set(COMMANDS) <= set(named)


def test_the_help_shows_groups_and_whole_sentences() -> None:
    shown = CliRunner().invoke(cli, ["--help"]).output
    lines = shown.splitlines()
    for group in GROUPS:
        assert f"{group}:" in lines
    assert "..." not in shown.partition("Run it:")[2]
    for name in COMMANDS:
        [line] = [one for one in lines if one.startswith(f"  {name} ")]
        assert line.removeprefix(f"  {name} ").strip()[0].isupper(), line
    assert "  submit  Submit PROMPT as a job and print its id or its answer." in lines
