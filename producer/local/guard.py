"""Runs one command, and ends it when the process that started it has ended in any way.

    python -I -S guard.py PARENT_PID GRACE_S COMMAND...

The guard leads a session of its own, so Ctrl-C reaches only the parent, and the parent decides.
The guard forwards SIGTERM and SIGHUP to the command. When the parent is gone, the guard sends
SIGTERM to the command and, after GRACE_S seconds, SIGKILL. When the guard itself is killed, the
kernel kills the command (on Linux).

It imports little of the standard library and nothing else, to use little memory.
"""

import ctypes
import os
import select
import signal
import sys
import time

PARENT_POLL_S = 0.25
PR_SET_PDEATHSIG = 1


def _start(command: list[str], blocked: set[signal.Signals]) -> int:
    """Start the command; return its pid. It ends with this process, with no signal blocked."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    guard = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, blocked)
        if libc is not None:
            libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
        if os.getppid() == guard:
            os.execvp(command[0], command)  # noqa: S606  the parent chose it
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
    os._exit(127)


def main(arguments: list[str]) -> int:
    """Run the command to its end; return its exit code, or 128 plus the signal that ended it."""
    parent, grace_s, command = int(arguments[0]), float(arguments[1]), arguments[2:]
    wakes, waker = os.pipe()
    for end in (wakes, waker):
        os.set_blocking(end, False)
    pid = 0

    def forward(number: int, _frame: object) -> None:
        if pid:
            os.kill(pid, number)

    # Blocked until the pid is known: a SIGTERM that comes in between must reach the command.
    signals = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    pid = _start(command, signals)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, forward)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)

    kill_at: float | None = None
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        if os.getppid() != parent:
            if kill_at is None:
                kill_at = time.monotonic() + grace_s
                os.kill(pid, signal.SIGTERM)
            elif time.monotonic() > kill_at:
                os.killpg(0, signal.SIGKILL)
        if select.select([wakes], [], [], PARENT_POLL_S)[0]:
            os.read(wakes, 512)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
