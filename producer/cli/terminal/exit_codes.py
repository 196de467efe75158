"""How a command ends: turns every error into a message on standard error and an exit code."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

import click

from headgate.producer.cli.terminal.output import print_error_text, print_note

DONE, FAILED, WRONG_USE, UNREACHABLE, INTERRUPTED = 0, 1, 2, 3, 130

_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
"""Without a file name these errors come from standard output; other writers name their file."""


def run(arguments: Sequence[str]) -> int:
    """Run the command of `headgate` that the arguments name; return its exit code."""
    from headgate.producer.cli.commands import cli

    # Ends the process if a shell asks (_HEADGATE_COMPLETE); `command.main` would do it.
    cli._main_shell_completion({}, "headgate")
    return run_command(cli, "headgate", arguments)


def run_command(command: click.Command, name: str, arguments: Sequence[str]) -> int:
    """Run the command and return its exit code; turn every exception into one."""
    _open_streams()
    try:
        # Not `command.main`: it ends the process itself when the reader of a pipe goes away.
        with command.make_context(name, list(arguments)) as context:
            code = command.invoke(context)
        sys.stdout.flush()
        return code if isinstance(code, int) else DONE
    except BrokenPipeError:
        _discard_stdout()
        return DONE
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(shown)
        print_error_text(shown.getvalue())
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        print_note("interrupted")
        return INTERRUPTED
    except Exception as error:
        return _code_of(error)


def _open_streams() -> None:
    """Connect the standard streams that were closed at the start to the null device."""
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            # Keep the number of the stream: children take whatever file has it for the stream.
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, fd)
            if null != fd:
                os.close(null)
            setattr(sys, name, os.fdopen(fd, "w" if fd else "r", closefd=False))


def _discard_stdout() -> None:
    # The reader has gone (`| head`) or the disk is full. Python still flushes the stream at exit.
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _code_of(error: Exception) -> int:
    from headgate.producer.batch.rows import UnknownBatch
    from headgate.producer.errors import UnknownJob
    from headgate.shared.errors import HeadgateError, Unreachable, WrongUse, shown
    from headgate.shared.servers.embedded import EmbeddedFailed

    match error:
        case WrongUse() | UnknownJob() | UnknownBatch():
            print_note(str(error))
            return WRONG_USE
        case Unreachable() | EmbeddedFailed():
            print_note(str(error))
            return UNREACHABLE
        case HeadgateError():
            print_note(str(error))
            return FAILED
    if isinstance(error, UnicodeEncodeError) and any(map(_lacks_utf8, sys.argv)):
        print_note(f"argument: {shown(error.object)}: is not text in UTF-8; use text in UTF-8")
        return WRONG_USE
    if _is_of_server(error):
        print_note(f"a server cannot be reached: {_first_line(error)}")
        return UNREACHABLE
    if isinstance(error, OSError) and error.filename is None and error.errno in _UNWRITABLE:
        _discard_stdout()
        print_note(f"standard output cannot be written: {error.strerror}")
        return FAILED
    if isinstance(error, OSError) and error.filename is not None:
        print_note(f"{error.filename}: {error.strerror}")
        return FAILED
    return _report_fault(error)


def _report_fault(error: Exception) -> int:
    """Print an error that nobody expected, and write its traceback to the log."""
    from headgate.shared.errors import SettingError

    try:
        log = _log_of(error)
    except (OSError, SettingError):
        log = None
    where = f"; the traceback is in {log}" if log else ""
    print_note(f"internal fault: {type(error).__name__}: {_first_line(error)}{where}")
    return FAILED


def _lacks_utf8(argument: str) -> bool:
    """Return whether the argument had bytes that are not UTF-8; Python keeps them as surrogates."""
    return any("\udc80" <= letter <= "\udcff" for letter in argument)


def _is_of_server(error: Exception) -> bool:
    """Return whether redis-py or SQLAlchemy report that their server does not answer."""
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


def confirm(question: str) -> None:
    """Ask on the terminal; raise click.Abort unless the answer is yes.

    Raise UsageError if standard input is at its end: then nobody can answer.
    """
    try:
        click.confirm(question, abort=True, err=True)
    except click.Abort as end:
        if isinstance(end.__context__, EOFError):
            click.echo(err=True)
            raise click.UsageError("standard input gave no answer; use --yes") from None
        raise
