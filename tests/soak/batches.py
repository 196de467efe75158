"""`headgate batch run` without end: each batch is gone on with until its output is whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.child import ChildProcess
from tests.support.installation import command, count_lines, lines_of, write_prompts

SERVER_AWAY, INTERRUPTED = 3, 130


@dataclass(slots=True)
class Batches:
    """One command at a time. `faults`: what went wrong; `starts`: how often it was started."""

    folder: Path
    env: Mapping[str, str]
    lines: int
    done: int = 0
    starts: int = 0
    resumed: int = 0
    faults: list[str] = field(default_factory=list)
    process: ChildProcess | None = None
    provoked: bool = False
    wanted: bool = True

    @property
    def output(self) -> Path:
        """Where the batch under way writes."""
        return self.folder / f"batch-{self.done}.out.jsonl"

    @property
    def idle(self) -> bool:
        """No batch is under way, and none is wanted."""
        return not self.wanted and self.process is None

    def tend(self) -> None:
        """A command runs; one that ended has been looked at."""
        if self.process is not None and not self.process.running:
            self._look(self.process.exit_code())
        if self.process is None and self.wanted:
            first = 1 + self.done * self.lines
            write_prompts(self._input, self.lines, first)
            self._start()

    def _look(self, code: int | None) -> None:
        assert self.process is not None
        if code == 0:
            self._check()
            self._input.unlink()
            self.output.unlink()
            self.process, self.provoked, self.done = None, False, self.done + 1
            return
        killed = self.provoked and (code in (-9, -15, INTERRUPTED))
        if not killed and code != SERVER_AWAY:
            self.faults.append(f"batch {self.done}: exit code {code}:\n{self.process.log_end(8)}")
        if len(self.faults) > 5:
            self.process, self.wanted = None, False
            return
        self.resumed += 1
        self._start()

    def _start(self) -> None:
        self.starts, self.provoked = self.starts + 1, False
        # --resume also begins: a kill may come before the batch was on record.
        run: list[str | Path] = ["batch", "run", self._input, "-o", self.output, "--resume"]
        log = self.folder / "batch.log"
        self.process = command(run, self.env, log)
        self.process.start()

    @property
    def _input(self) -> Path:
        return self.folder / f"batch-{self.done}.jsonl"

    def _check(self) -> None:
        first = 1 + self.done * self.lines
        expected = Counter(f"id-{n}" for n in range(first, first + self.lines))
        try:
            lines = lines_of(self.output)
        except ValueError as error:
            self.faults.append(f"batch {self.done}: a torn line in its output: {error}")
            return
        found = Counter(line["custom_id"] for line in lines)
        if found != expected:
            missing, extra = (expected - found).total(), (found - expected).total()
            self.faults.append(f"batch {self.done}: {missing} lines missing, {extra} too many")
        wrong = [line for line in lines if line["error"] is not None]
        if wrong:
            self.faults.append(f"batch {self.done}: {len(wrong)} errors, as {wrong[0]['error']}")

    def told(self) -> str:
        """How far it is, in words."""
        return f"batch {self.done}: {count_lines(self.output)}/{self.lines}"
