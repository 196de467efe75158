"""A worker that finds the database away at its start waits for it, says so once, and begins."""

from collections.abc import Callable
from pathlib import Path

from headgate import Client
from headgate.shared.database import migrate
from headgate.shared.database.engine import open_engine
from headgate.shared.settings import Settings
from tests.support import installation
from tests.support.child import BUSY, ChildProcess, wait_until
from tests.support.servers import PostgresServer, Simulator, ValkeyServer

WORD = "this worker begins when it answers"


def test_a_worker_begins_when_the_database_answers(
    valkey: ValkeyServer,
    simulator: Simulator,
    postgres_factory: Callable[[], PostgresServer],
    tmp_path: Path,
) -> None:
    server = postgres_factory()
    with server.database() as url:
        engine = open_engine(url, 5)
        migrate.upgrade(engine)
        engine.dispose()
        server.stop()
        env = {
            "HEADGATE_HOME": str(tmp_path / "home"),
            "HEADGATE_REDIS_URL": valkey.url,
            "HEADGATE_DATABASE_URL": url,
            "HEADGATE_SIMULATOR_URL": simulator.url,
        }
        argv = installation.worker_process(env, tmp_path).argv
        worker = ChildProcess(argv, env=env, log_path=tmp_path / "worker.log")
        with installation.ended_afterwards(worker):
            worker.start()
            wait_until(lambda: WORD in worker.log(), 20, "its word")
            assert worker.stop(10) == 0, "told to stop while it waits"
            worker.start()
            wait_until(lambda: worker.log().count(WORD) == 2, 20, "its word again")
            server.start()
            settings = Settings(home=tmp_path / "home", redis_url=valkey.url, database_url=url)
            with Client(settings) as client:
                assert client.submit("late").result(timeout_s=30 * BUSY).status == "succeeded"
            assert worker.log().count(WORD) == 2
            assert worker.stop(20) == 0
