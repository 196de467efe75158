"""The lock file of a SQLite database stays open between two turns, and harms no fork."""

import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import psutil

from headgate.shared.database.sqlite_lock import close, turn

#: Takes a turn, uses up all file handles, and takes more turns.
WITHOUT_HANDLES = """
import os, resource, sys
from headgate.shared.database.sqlite_lock import turn
with turn(sys.argv[1], 5):
    pass
resource.setrlimit(resource.RLIMIT_NOFILE, (3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
try:
    os.open("/dev/null", os.O_RDONLY)
except OSError:
    pass
else:
    sys.exit(1)
for _ in range(3):
    with turn(sys.argv[1], 5):
        pass
"""


def handles(folder: Path) -> int:
    """How many files in this folder the process has open; others come and go beside the test."""
    return sum(folder in Path(file.path).parents for file in psutil.Process().open_files())


def is_free(path: Path) -> bool:
    script = "import sys; from headgate.shared.database.sqlite_lock import turn\n"
    script += "with turn(sys.argv[1], 0.2): pass"
    return subprocess.run([sys.executable, "-c", script, path], capture_output=True).returncode == 0


def test_turns_need_no_further_file_handle(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", WITHOUT_HANDLES, str(tmp_path / "db")]
    ended = subprocess.run(argv, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 3


def test_one_file_stays_open_and_closing_ends_that(tmp_path: Path) -> None:
    for n in range(20):
        with turn(str(tmp_path / "db"), 5):
            assert 0 < n < 19 or not is_free(tmp_path / "db")
    assert handles(tmp_path) == 1
    assert is_free(tmp_path / "db")
    close(str(tmp_path / "db"))
    assert handles(tmp_path) == 0


def test_many_databases_leave_few_files_open(tmp_path: Path) -> None:
    for n in range(30):
        with turn(str(tmp_path / f"db{n}"), 5):
            pass
    assert 1 <= handles(tmp_path) <= 4


def test_two_threads_of_a_process_take_turns_too(tmp_path: Path) -> None:
    entered = threading.Event()

    def second() -> None:
        with turn(str(tmp_path / "db"), 30):
            entered.set()

    with turn(str(tmp_path / "db"), 5):
        thread = threading.Thread(target=second)
        thread.start()
        assert not entered.wait(0.2)
    assert entered.wait(30)
    thread.join()


def test_a_lock_file_that_was_replaced_is_opened_anew(tmp_path: Path) -> None:
    with turn(str(tmp_path / "db"), 5):
        pass
    (tmp_path / "db.turn").unlink()
    with turn(str(tmp_path / "db"), 5):
        assert (tmp_path / "db.turn").exists()
        assert not is_free(tmp_path / "db")


def test_a_forked_child_holds_no_lock_of_its_parent(tmp_path: Path) -> None:
    reads, writes = os.pipe()
    with turn(str(tmp_path / "db"), 5):
        pid = os.fork()
        if pid == 0:
            os.close(writes)
            os.read(reads, 1)  # lives until the parent has tried
            os._exit(0)
    os.close(reads)
    assert is_free(tmp_path / "db")
    os.close(writes)
    assert os.waitpid(pid, 0)[1] == 0
