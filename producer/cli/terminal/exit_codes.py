"""How a command ends: every error becomes words on standard error and one of our exit codes."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

import click

DONE, FAILED, WRONG_USE, UNREACHABLE, INTERRUPTED = 0, 1, 2, 3, 130

_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
"""Without a file's name these come from standard output: other files are named by their writers."""


def run(arguments: Sequence[str]) -> int:
    """The command of `headgate` has been carried out; its exit code."""
    from headgate.producer.cli.commands import cli

    return carry_out(cli, "headgate", arguments)


def carry_out(command: click.Command, name: str, arguments: Sequence[str]) -> int:
    """The command has been carried out, whatever it met; its exit code."""
    _open_streams()
    try:
        # Not `command.main`, which would end the process by itself when a reader goes away.
        with command.make_context(name, list(arguments)) as begun:
            code = command.invoke(begun)
        sys.stdout.flush()
        return code if isinstance(code, int) else DONE
    except BrokenPipeError:
        _quiet_stdout()
        return DONE
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        with suppress(OSError):
            error.show(sys.stderr)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        say("interrupted")
        return INTERRUPTED
    except Exception as error:
        return _code_of(error)


def say(words: str) -> None:
    """The words stand on standard error, if anyone reads it."""
    with suppress(OSError, ValueError):
        sys.stderr.write(f"headgate: {words}\n")
        sys.stderr.flush()


def _open_streams() -> None:
    """Streams that were closed when the program began lead to nowhere."""
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            # On its own number, so that no file opened later is taken for a stream by children.
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.dup2(nowhere, fd)
            if nowhere != fd:
                os.close(nowhere)
            setattr(sys, name, os.fdopen(fd, "w" if fd else "r", closefd=False))


def _quiet_stdout() -> None:
    # Nobody takes it any more (`| head`, a full disk); what Python flushes at its end must go
    # somewhere.
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _code_of(error: Exception) -> int:
    from headgate.producer.batch.rows import UnknownBatch
    from headgate.producer.errors import UnknownJob
    from headgate.shared.errors import HeadgateError, SettingError, Unreachable, WrongUse
    from headgate.shared.servers.embedded import EmbeddedFailed

    match error:
        case WrongUse() | UnknownJob() | UnknownBatch():
            say(str(error))
            return WRONG_USE
        case Unreachable() | EmbeddedFailed():
            say(str(error))
            return UNREACHABLE
        case HeadgateError():
            say(str(error))
            return FAILED
    if _of_a_server(error):
        say(f"a server cannot be reached: {_first_line(error)}")
        return UNREACHABLE
    if isinstance(error, OSError) and error.filename is None and error.errno in _UNWRITABLE:
        _quiet_stdout()
        say(f"standard output: cannot be written: {error.strerror}")
        return FAILED
    if isinstance(error, OSError) and error.filename is not None:
        say(f"{error.filename}: {error.strerror}")
        return FAILED
    try:
        log = _log_of(error)
    except (OSError, SettingError):
        log = None
    where = f"; {log} says where" if log else ""
    say(f"internal fault: {type(error).__name__}: {_first_line(error)}{where}")
    return FAILED


def _of_a_server(error: Exception) -> bool:
    """Whether redis-py or SQLAlchemy say that their server does not answer."""
    names = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(error).__mro__}
    return bool(
        names
        & {
            "redis.ConnectionError",
            "redis.TimeoutError",
            "sqlalchemy.OperationalError",
            "sqlalchemy.InterfaceError",
        }
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _log_of(error: Exception) -> str:
    import traceback

    from headgate.shared import settings

    folder = settings.load().home_path / "logs"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / "headgate.log"
    with path.open("a", encoding="utf-8", errors="backslashreplace") as log:
        log.write(f"\n{' '.join(sys.argv)}\n")
        traceback.print_exception(error, file=log)
    return str(path)


def ask(question: str) -> None:
    """The answer was yes; where nobody can answer, the option that answers is named."""
    try:
        click.confirm(question, abort=True, err=True)
    except click.Abort as end:
        if isinstance(end.__context__, EOFError):
            click.echo(err=True)
            raise click.UsageError("nobody answers on standard input; say --yes") from None
        raise
