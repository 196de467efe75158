"""A command, an option or a value with a slip is refused with the one that is meant."""

import pytest

from headgate.producer.cli.terminal.exit_codes import run


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["submitt"], "No such command 'submitt'. Did you mean 'submit'?"),
        (["start"], "No such command 'start'. Did you mean 'up'?"),
        (["status"], "No such command 'status'. Did you mean 'health'?"),
        (["batch", "rum"], "No such command 'rum'. Did you mean 'run'?"),
        (["dead", "dropp"], "No such command 'dropp'. Did you mean 'drop'?"),
        (["submit", "--wiat", "x"], "No such option '--wiat'. Did you mean '--wait'?"),
        (["up", "--flower-port", "5555"], "--flower-port is for Flower; add --flower"),
    ],
)
def test_a_slip_names_what_is_meant(
    capsys: pytest.CaptureFixture[str], argv: list[str], words: str
) -> None:
    assert run(argv) == 2
    assert words in capsys.readouterr().err
