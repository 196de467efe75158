"""Fixtures for all tests: real servers, started when first asked for, and a watch over leftovers.

Servers of the session are one set per pytest-xdist worker. Tests run in an empty folder, without
the caller's settings and keys, so that no test can reach what a developer's `.env` or
`HEADGATE_REDIS_URL` points to.
"""

import gc
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from hypothesis import configuration as hypothesis_configuration
from hypothesis import settings as hypothesis_settings
from sqlalchemy import Engine

from headgate.shared.database import migrate
from headgate.shared.database.engine import open_engine
from tests import ROOT
from tests.support import nursery
from tests.support.celery_nodes import (  # noqa: F401 (fixtures that replace those of pytest-celery)
    celery_backend_cluster,
    celery_broker_cluster,
    celery_valkey,
    celery_worker_argv,
    celery_worker_cluster,
    celery_worker_env,
)
from tests.support.child import die_with_parent, wait_until
from tests.support.descendants import Descendants
from tests.support.proxy import TcpProxy
from tests.support.servers import (
    PostgresServer,
    Simulator,
    ValkeyServer,
    remove_abandoned_folders,
    short_folder,
)

pytest_plugins = ["pytester"]  # the fixtures below are tested by tests in a test

RUN_MARK = "PYTEST_HEADGATE_RUN"  # in the environment of everything the tests start
GRACE_S = 10  # how long a process may take to end after its test; a keeper lingers a few seconds
PRIVATE_PREFIXES = ("HEADGATE_", "OPENAI_", "ANTHROPIC_", "CELERY_")

TESTS_PER_CORE = 3
"""Tests that run at once on a core: most of a test's time it waits for servers and clocks."""


def pytest_xdist_auto_num_workers() -> int:
    """Return how many processes `-n auto` starts."""
    return TESTS_PER_CORE * (os.cpu_count() or 1)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let each process begin with files of slow tests, so that none of them is left for the end.

    pytest-xdist gives each process one part of the list, and lets the quick ones take from others.
    Tests of one file stay together, since they share servers.
    """
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    slow = [f for f, tests in files.items() if any(t.get_closest_marker("slow") for t in tests)]
    parts: list[list[pytest.Item]] = [[] for _ in range(processes)]
    for n, file in enumerate(slow):
        parts[n % processes] += files.pop(file)
    for tests in files.values():
        min(parts, key=len).extend(tests)
    items[:] = [item for part in parts for item in part]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Spare the collector the hundreds of MB of modules and tests, which stay to the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


if "PYTEST_XDIST_WORKER" in os.environ:
    die_with_parent()  # a worker in the middle of a test would outlive a killed pytest otherwise

hypothesis_configuration.set_hypothesis_home_dir(
    Path(tempfile.gettempdir()) / f"hypothesis-headgate-{os.getuid()}"
)
hypothesis_settings.register_profile(
    "headgate", deadline=None, print_blob=True, derandomize="CI" in os.environ
)
hypothesis_settings.load_profile("headgate")


@pytest.fixture(scope="session", autouse=True)
def _apart_from_the_caller() -> Iterator[None]:
    """The session runs in an empty folder without settings or keys, and leaves nothing alive."""
    remove_abandoned_folders()
    mark = uuid.uuid4().hex
    before = dict(os.environ)
    here = Path.cwd()
    for name in before:
        if name.startswith(PRIVATE_PREFIXES):
            del os.environ[name]
    os.environ[RUN_MARK] = mark
    os.environ["HEADGATE_MODEL"] = "gpt-4o-mini"  # prices and pools that the tests count on
    os.environ["PYTHONPATH"] = str(ROOT)  # children import `tests` too, wherever they run
    with short_folder() as folder:
        os.chdir(folder)
        with nursery.opened():
            yield
        os.chdir(here)
    os.environ.clear()
    os.environ.update(before)
    try:
        wait_until(lambda: not _started_with(mark), GRACE_S, "everything started here to end")
    except TimeoutError:
        left = _started_with(mark)
        told = [_describe(process) for process in left]
        for process in left:
            process.kill()
        pytest.fail(f"left running at the end of the session: {told}")


@pytest.fixture(autouse=True)
def _no_child_left_behind(_apart_from_the_caller: None) -> Iterator[None]:
    """The test fails if a child process of it is still alive GRACE_S after its end."""
    before = Descendants()
    yield
    try:
        wait_until(lambda: not before.newer(), GRACE_S, "the children of this test to end")
    except TimeoutError:
        left = before.newer()
        told = [_describe(child) for child in left]
        for child in left:
            child.kill()
        pytest.fail(f"this test left processes behind: {told}")


def _started_with(mark: str) -> list[psutil.Process]:
    """Living processes, detached ones included, whose environment holds `mark`."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(RUN_MARK) == mark:
                found.append(process)
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue
    return found


def _describe(process: psutil.Process) -> str:
    try:
        test = process.environ().get("PYTEST_CURRENT_TEST", "the session")
        return f"{process.pid} {' '.join(process.cmdline())} (started in {test})"
    except (psutil.AccessDenied, psutil.NoSuchProcess):
        return str(process.pid)


@pytest.fixture(scope="session")
def _session_valkey(_apart_from_the_caller: None) -> Iterator[ValkeyServer]:
    with short_folder() as folder, ValkeyServer(folder, lasting=True) as server:
        yield server


@pytest.fixture
def valkey(_session_valkey: ValkeyServer) -> ValkeyServer:
    """A running, empty Valkey of the session; take `valkey_factory` for one that may be killed."""
    _session_valkey.thaw()  # a test that froze it may have failed before its end
    with _session_valkey.client() as client:
        client.flushall()
        client.script_flush()
    return _session_valkey


@pytest.fixture
def valkey_factory() -> Iterator[Callable[..., ValkeyServer]]:
    """A function that starts a Valkey of the test's own: `valkey_factory(appendonly=True)`."""
    with ExitStack() as stack:

        def start(**options: object) -> ValkeyServer:
            folder = stack.enter_context(short_folder())
            server = ValkeyServer(folder, **options)  # type: ignore[arg-type]
            stack.callback(server.kill)
            return server.start()

        yield start


@pytest.fixture(scope="session")
def postgres(_apart_from_the_caller: None) -> Iterator[PostgresServer]:
    """A running PostgreSQL, shared by the session: take `postgres_factory` to kill one."""
    with short_folder() as folder, PostgresServer(folder / "pg", lasting=True) as server:
        yield server


@pytest.fixture
def postgres_factory() -> Iterator[Callable[[], PostgresServer]]:
    """A function that starts a PostgreSQL of the test's own, which may be killed or frozen."""
    with ExitStack() as stack:

        def start() -> PostgresServer:
            server = PostgresServer(stack.enter_context(short_folder()) / "pg")
            stack.callback(server.kill)
            return server.start()

        yield start


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """The URL of a new, empty PostgreSQL database, dropped afterwards."""
    with postgres.database() as url:
        yield url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The URL of a SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'headgate.db'}"


@pytest.fixture(scope="session")
def _sqlite_with_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with our tables, to be copied."""
    file = tmp_path_factory.mktemp("tables") / "headgate.db"
    _make_tables(f"sqlite:///{file}")
    return file


@pytest.fixture(scope="session")
def _postgres_with_tables(postgres: PostgresServer) -> Iterator[str]:
    """The name of a PostgreSQL database with our tables, to be copied."""
    with postgres.database() as url:
        _make_tables(url)
        yield url.rpartition("/")[2]


def _make_tables(url: str) -> None:
    engine = open_engine(url)
    migrate.upgrade(engine)
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest) -> str:
    """The test runs twice: on an empty SQLite file and on an empty PostgreSQL database."""
    url: str = request.getfixturevalue(
        "sqlite_url" if request.param == "sqlite" else "postgres_url"
    )
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, sqlite_url: str) -> Iterator[str]:
    """The test runs twice, on a database of each kind that has our tables and no row."""
    if request.param == "sqlite":
        copied = request.getfixturevalue("_sqlite_with_tables")
        shutil.copy(copied, sqlite_url.removeprefix("sqlite:///"))
        yield sqlite_url
    else:
        copied = request.getfixturevalue("_postgres_with_tables")
        with request.getfixturevalue("postgres").database(copied) as url:
            yield url


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine on a database of each kind that has our tables."""
    engine = open_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def simulator_factory(tmp_path: Path) -> Iterator[Callable[..., Simulator]]:
    """A function that starts a simulated provider: `simulator_factory("--latency-ms", "50")`."""
    with ExitStack() as stack:

        def start(*flags: str) -> Simulator:
            server = Simulator(tmp_path / f"simulator-{uuid.uuid4().hex[:6]}", flags)
            stack.callback(server.kill)
            return server.start()

        yield start


@pytest.fixture
def simulator(simulator_factory: Callable[..., Simulator]) -> Simulator:
    """A running simulated provider without flags."""
    return simulator_factory()


@pytest.fixture
def tcp_proxy() -> Iterator[Callable[[int], TcpProxy]]:
    """A function that opens a proxy to a loopback port: `tcp_proxy(valkey.port).cut()`."""
    with ExitStack() as stack:

        def start(target_port: int) -> TcpProxy:
            proxy = TcpProxy(target_port).start()
            stack.callback(proxy.stop)
            return proxy

        yield start
