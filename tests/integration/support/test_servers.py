"""The servers that the other tests rely on do what they say, faults included."""

import socket
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
import sqlalchemy

from tests.support.child import ChildFailed, ChildProcess, wait_until
from tests.support.proxy import TcpProxy
from tests.support.servers import (
    PostgresServer,
    Simulator,
    ValkeyServer,
    remove_abandoned_folders,
    short_folder,
)

WATCHED = """
import tests.conftest
from tests.conftest import _apart_from_the_caller, _no_child_left_behind
tests.conftest.GRACE_S = 0.5
"""  # the conftest of a test run inside a test
StartValkey = Callable[..., ValkeyServer]


@pytest.mark.parametrize("_round", [1, 2])
def test_the_shared_valkey_is_empty_for_each_test(valkey: ValkeyServer, _round: int) -> None:
    with valkey.client() as client:
        assert client.dbsize() == 0
        client.set("left", "behind")


def test_an_append_only_valkey_remembers_after_a_kill(valkey_factory: StartValkey) -> None:
    server = valkey_factory(appendonly=True, extra=["--appendfsync", "always"])
    with server.client() as client:
        client.set("kept", "1")
    server.kill()
    server.start()
    with server.client() as client:
        assert client.get("kept") == "1"


def test_a_valkey_can_listen_on_a_unix_socket_only(valkey_factory: StartValkey) -> None:
    with short_folder() as folder:
        server = valkey_factory(unixsocket=folder / "s.sock")
        with server.client() as client:
            assert client.ping()


def test_a_frozen_valkey_answers_again_after_thawing(valkey_factory: StartValkey) -> None:
    server = valkey_factory()
    with server.client(socket_timeout=0.2) as client:
        server.freeze()
        with pytest.raises(redis.TimeoutError):
            client.ping()
        server.thaw()
        wait_until(server.ready, 5, "the thawed server")


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(ChildFailed, match=r"no-such-option"):
        ValkeyServer(tmp_path / "v", extra=["--no-such-option", "1"]).start()


def test_each_test_gets_an_empty_database_of_its_own(empty_database_url: str) -> None:
    engine = sqlalchemy.create_engine(empty_database_url)
    with engine.begin() as connection:
        assert sqlalchemy.inspect(connection).get_table_names() == []
        connection.execute(sqlalchemy.text("CREATE TABLE t (n INTEGER)"))
    engine.dispose()


def test_a_killed_postgres_comes_back_with_what_was_committed(
    postgres_factory: Callable[[], PostgresServer],
) -> None:
    server = postgres_factory()
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute("CREATE TABLE kept (n int)")
        connection.execute("CHECKPOINT")
    server.kill()
    server.start()
    with psycopg.connect(server.url("postgres")) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)


def test_a_proxy_passes_cuts_stalls_and_refuses(
    valkey: ValkeyServer, tcp_proxy: Callable[[int], TcpProxy]
) -> None:
    def ask(line: socket.socket) -> bytes:
        line.sendall(b"PING\r\n")
        return line.recv(100)

    def connect() -> socket.socket:
        return socket.create_connection(("127.0.0.1", proxy.port), timeout=30)

    proxy = tcp_proxy(valkey.port)
    with connect() as line:
        assert ask(line) == b"+PONG\r\n"
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            ask(line)
    with connect() as line:
        proxy.stall()
        line.settimeout(0.2)
        with pytest.raises(TimeoutError):
            ask(line)
        line.settimeout(30)
        proxy.flow()
        assert line.recv(100) == b"+PONG\r\n"
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        connect()
    proxy.accept()
    with connect() as line:
        assert ask(line) == b"+PONG\r\n"
    wait_until(lambda: proxy.connections == 0, 5, "the proxy to let go of closed connections")


@pytest.mark.skipif(sys.platform != "linux", reason="needs the parent death signal of Linux")
def test_a_killed_test_run_takes_its_workers_and_servers_along(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(WATCHED + "from tests.conftest import _session_valkey, valkey\n")
    pytester.makepyfile(
        """
        import os, time
        from pathlib import Path
        HERE = Path(__file__).parent
        def test_long(valkey):
            (HERE / "part").write_text(f"{os.getpid()} {valkey.pid}")
            (HERE / "part").rename(HERE / "pids")
            time.sleep(600)
        """
    )
    argv = [sys.executable, "-m", "pytest", "-n", "1", "-p", "no:cacheprovider"]
    with ChildProcess(argv, log_path=pytester.path / "log", cwd=pytester.path) as run:
        told = pytester.path / "pids"
        wait_until(lambda: told.exists() or not run.running, 30, "the test inside to run")
        assert told.exists(), run.log()
        pids = [int(pid) for pid in told.read_text().split()]
        assert all(psutil.pid_exists(pid) for pid in pids)
        run.kill()
        wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids), 5, f"{pids} to end")


def test_a_test_that_leaves_a_child_behind_fails(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(WATCHED)
    pytester.makepyfile(
        """
        import subprocess
        def test_careless():
            subprocess.Popen(["sleep", "60"])
        def test_careful():
            subprocess.Popen(["sleep", "0"]).wait()
        """
    )
    outcome = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-W", "ignore")
    outcome.assert_outcomes(passed=2, errors=1)
    outcome.stdout.fnmatch_lines(["*left processes behind*sleep 60*test_careless*"])


def test_a_detached_process_of_the_tests_is_found_at_the_end_of_the_session(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeconftest(WATCHED)
    pytester.makepyfile(
        """
        import subprocess
        def test_careless():
            subprocess.run("sleep 61 &", shell=True, start_new_session=True)
        """
    )
    outcome = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-W", "ignore")
    outcome.assert_outcomes(passed=1, errors=1)
    outcome.stdout.fnmatch_lines(["*left running at the end*sleep 61*test_careless*"])


def test_a_child_that_ends_at_once_is_reported_with_its_log(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", "raise SystemExit('gone for a reason')"]
    child = ChildProcess(argv, log_path=tmp_path / "log")
    with pytest.raises(ChildFailed, match="gone for a reason"):
        child.run()


def test_a_command_may_have_ended_before_its_start_is_seen(tmp_path: Path) -> None:
    class Slow(ChildProcess):
        may_end = True

        def ready(self) -> bool:
            return not self.running

    child = Slow([sys.executable, "-c", "raise SystemExit(3)"], log_path=tmp_path / "log").start()
    assert child.exit_code() == 3


def test_a_simulated_provider_counts_from_zero(simulator: Simulator) -> None:
    assert simulator.url.startswith("http://127.0.0.1:")
    assert simulator.stats()["requests"] == 0


def test_folders_of_killed_runs_are_swept_and_those_of_living_ones_stay() -> None:
    ended = ChildProcess(["true"], log_path=Path("log"))
    ended.run()
    with short_folder() as mine:
        abandoned = mine.parent / f"headgate-{ended.pid}-left"
        abandoned.mkdir()
        remove_abandoned_folders()
        assert not abandoned.exists()
        assert mine.exists()
