"""Runs the simulator as a process: `python -m headgate.workers.simulator [flags]`."""

import asyncio
import contextlib
import os
import resource
import signal
import sys
import time
from pathlib import Path

from headgate.workers.simulator.billing import price_of
from headgate.workers.simulator.engine import Engine
from headgate.workers.simulator.flags import Flags, parse
from headgate.workers.simulator.server import SimulatorServer, serving

PARENT_POLL_S = 1.0


async def run(flags: Flags) -> None:
    """Serve until SIGTERM, SIGINT or the parent's end."""
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    watch = None
    if flags.with_parent is not None:
        watch = asyncio.create_task(_watch(flags.with_parent, over))
    engine = Engine(flags.behaviour, time.monotonic, time.time)
    server = SimulatorServer(engine, flags.json_log)

    # Reading the price list takes a moment. Do it now, so that the first caller need not wait.
    price_of("openai", "gpt-4o-mini")
    async with serving(server, flags.host, flags.port) as url:
        # Write the file before the line: a reader of the line may look into the file.
        if flags.ready_file is not None:
            _write_whole(flags.ready_file, url)
        sys.stdout.write(f"simulator listening on {url}\n")
        sys.stdout.flush()
        await over.wait()
    if watch is not None:
        watch.cancel()


async def _watch(pid: int, over: asyncio.Event) -> None:
    """Wait until the process `pid` is gone, then set `over`."""
    while _runs(pid):  # noqa: ASYNC110  a process that is not our child has no event for its end
        await asyncio.sleep(PARENT_POLL_S)
    over.set()


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    with contextlib.suppress(OSError, IndexError):
        # A dead parent keeps its number until its own parent collects it.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True


def _write_whole(path: Path, text: str) -> None:
    """Write `text` to `path` in one step, so that nobody reads only a part of it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text + "\n")
    draft.replace(path)


def _raise_file_limit() -> None:
    """Allow as many open connections as the system permits."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main(arguments: list[str]) -> int:
    """Run the simulator; return the exit code: 0 ended as asked, 2 wrong use."""
    flags = parse(arguments)
    _raise_file_limit()
    try:
        import uvloop
    except ImportError:
        start = asyncio.run
    else:
        start = uvloop.run
    try:
        start(run(flags))
    except OSError as wrong:
        sys.stderr.write(f"simulator: cannot listen on {flags.host}:{flags.port}: {wrong}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
