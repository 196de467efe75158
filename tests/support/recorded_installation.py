"""A new installation whose worker asks a recording vendor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support import installation
from tests.support.command import headgate
from tests.support.recording_provider import RecordingProvider
from tests.support.servers import ValkeyServer


@contextmanager
def asking(
    vendor: RecordingProvider, valkey: ValkeyServer, url: str, folder: Path, **more: str
) -> Iterator[dict[str, str]]:
    """The settings of the installation, with `more`, while its worker runs."""
    env = {
        "HEADGATE_HOME": str(folder / "home"),
        "HEADGATE_REDIS_URL": valkey.url,
        "HEADGATE_DATABASE_URL": url,
        "OPENAI_API_KEY": "sk-test-openai",
        "OPENAI_BASE_URL": vendor.url,
        **more,
    }
    assert headgate(["db", "upgrade"], env).code == 0
    worker = installation.worker_process(env, folder)
    with installation.ended_afterwards(worker):
        worker.start()
        yield env
