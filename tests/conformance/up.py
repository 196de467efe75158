"""A gateway, a worker and their servers for the time of a run."""

from __future__ import annotations

import os
from pathlib import Path

from tests import ROOT
from tests.conformance.cases import answers
from tests.support.child import ChildProcess
from tests.support.command import PROGRAM
from tests.support.servers import free_port


class Up(ChildProcess):
    """`headgate up` with a gateway on a port of its own; `given` are its variables."""

    def __init__(self, folder: Path, *, simulate: bool = True, **given: str) -> None:
        self.port = free_port()
        argv = [*PROGRAM, "up", *(["--simulate"] if simulate else []), "--port", str(self.port)]
        env = {"HEADGATE_HOME": str(folder / "home"), "PYTHONPATH": str(ROOT), **given}
        for name in os.environ:  # the user's own servers and keys are not for this
            if name.startswith(("HEADGATE_", "OPENAI_", "ANTHROPIC_")):
                env.setdefault(name, "")
        super().__init__(argv, log_path=folder / "up.log", env=env, cwd=folder)

    def ready(self) -> bool:
        """Whether it takes calls."""
        return answers(f"{self.url}/health/ready")

    @property
    def url(self) -> str:
        """The base address of the gateway."""
        return f"http://127.0.0.1:{self.port}"
