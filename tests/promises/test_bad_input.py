"""Bad input of every kind: each gets a clear error, and nothing else suffers."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import installation
from tests.support.command import headgate
from tests.support.servers import Simulator, ValkeyServer, free_port

#: A bad line, the code that it gets and a word that tells the fault.
BAD: list[tuple[bytes, str, str]] = [
    (b'{"prompt": "cut', "invalid_request", "JSON"),
    (b'["prompt"]', "invalid_request", "object"),
    (b'"prompt"', "invalid_request", "object"),
    (b"[" * 100_000, "invalid_request", "JSON"),
    (b'{"prompt": 5}', "invalid_request", "prompt"),
    (b'{"prompt": ""}', "invalid_request", "prompt"),
    (b"{}", "invalid_request", "prompt"),
    (b'{"prompt": "x", "messages": [{"role": "user", "content": "y"}]}', "invalid_request",
     "exactly one"),
    (b'{"messages": []}', "invalid_request", "messages"),
    (b'{"messages": [{"role": "king", "content": "y"}]}', "invalid_request", "king"),
    (b'{"prompt": "x", "promt": "y"}', "invalid_request", "promt"),
    (b'{"prompt": "x", "tier": "gold"}', "invalid_request", "tier"),
    (b'{"prompt": "x", "priority": "soon"}', "invalid_request", "priority"),
    (b'{"prompt": "x", "tenant": 7}', "invalid_request", "tenant"),
    (b'{"prompt": "x", "model": "no-such-model"}', "unknown_model", "no-such-model"),
    (
        b'{"prompt": "x", "model": "auto", "max_usd_per_million": "0"}', "invalid_request",
        "too expensive",
    ),
    (b'{"prompt": "%s"}' % (b"word " * 400_000), "context_length", "tokens"),
    (b'{"prompt": "%s"}' % (b"x" * 11_000_000), "invalid_request", "10 MB"),
    (b'{"prompt": "\xff\xfe"}', "invalid_request", "UTF-8"),
    (b'{"prompt": "a\x00b"}', "invalid_request", "NUL"),
    (b'{"prompt": "\\ud800"}', "invalid_request", "JSON"),
    (b'{"prompt": "x", "deadline_s": -1}', "invalid_request", "deadline_s"),
    (b'{"prompt": "x", "params": {"max_tokens": -1}}', "invalid_request", "max_tokens"),
    (b'{"prompt": "x", "params": {"max_tokens": 1.5}}', "invalid_request", "max_tokens"),
    (b'{"prompt": "x", "params": {"temperature": NaN}}', "invalid_request", "JSON"),
    (b'{"prompt": "x", "params": {"temperature": 1e999}}', "invalid_request", ""),
    (b'{"prompt": "x", "params": {"seed": 1e30}}', "invalid_request", "seed"),
    (b'{"prompt": "x", "params": "hot"}', "invalid_request", "params"),
    (b'{"custom_id": [7], "prompt": "x"}', "invalid_request", "custom_id"),
    (b'{"custom_id": "good-1", "prompt": "x"}', "invalid_request", "good-1"),
    (b'{"method": "GET", "url": "/v1/chat/completions", "body": {}}', "invalid_request", "method"),
    (b'{"method": "POST", "url": "/v1/images", "body": {}}', "invalid_request", "url"),
    (b'{"url": "/v1/chat/completions", "body": {"messages": "hi"}}', "invalid_request", "messages"),
]  # fmt: skip

#: What looks odd and is right all the same.
ODD = [
    '{"prompt": "a\\u0000b"}',
    '{"prompt": "\\ud83d\\ude00 \u2028"}',
    '{"prompt": "null", "metadata": {"n": null}}',
    '  {"prompt": "blanks"}\t\r',
    "",
]


#: PR_CAPBSET_DROP of CAP_DAC_OVERRIDE, which takes effect with the next program.
WITHOUT_ROOTS_RIGHT = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)
main = "from headgate.producer.cli import main; main()"
os.execv(sys.executable, [sys.executable, "-c", main, *sys.argv[1:]])
"""


@pytest.fixture
def env(
    valkey: ValkeyServer, simulator: Simulator, database_url: str, tmp_path: Path
) -> dict[str, str]:
    """An installation on external servers, with its tables made; once on each database."""
    home = tmp_path / "home"
    home.mkdir()
    settings = {
        "HEADGATE_HOME": str(home),
        "HEADGATE_REDIS_URL": valkey.url,
        "HEADGATE_DATABASE_URL": database_url,
        "HEADGATE_SIMULATOR_URL": simulator.url,
    }
    assert headgate(["db", "upgrade"], settings).code == 0
    return settings


@pytest.mark.slow
def test_a_bad_line_never_stops_the_batch(
    env: dict[str, str], simulator: Simulator, tmp_path: Path
) -> None:
    """Between any two bad lines stands a good one."""
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    lines: list[bytes] = []
    for n, (bad, _, _) in enumerate(BAD, start=1):
        good = {"custom_id": f"good-{n}", "prompt": f"good {n}", "model": "gpt-4o-mini"}
        lines += [json.dumps(good).encode(), bad]
    lines += [odd.encode() for odd in ODD]
    source.write_bytes(b"\n".join(lines))
    good_lines = len(BAD) + sum(odd != "" for odd in ODD)

    worker = installation.worker_process(env, tmp_path)
    with installation.ended_afterwards(worker):
        worker.start()
        ended = headgate(["batch", "run", source, "-o", out, "--json"], env)
        after = headgate(["submit", "and on it goes", "--wait"], env)
        assert worker.stop(20) == 0
    assert ended.code == 1, ended.err
    assert "Traceback" not in ended.err + worker.log()
    assert after.code == 0

    found: dict[int, dict[str, Any]] = {line["headgate"]["line"]: line for line in _read(out)}
    filled = [n for n, line in enumerate(lines, start=1) if line]
    assert Counter(line["headgate"]["line"] for line in _read(out)) == Counter(filled)
    for n, (bad, code, fault) in enumerate(BAD, start=1):
        line = found[2 * n]
        shown = (bad[:80], line)
        assert found[2 * n - 1]["error"] is None, found[2 * n - 1]
        assert found[2 * n - 1]["custom_id"] == f"good-{n}"
        assert line["response"] is None, shown
        assert line["error"]["code"] == code, shown
        assert fault in line["error"]["message"], shown
        assert f"line {2 * n}: " in line["error"]["message"] or code == "context_length", shown
        assert len(line["error"]["message"]) < 1_000, shown
    summary = ended.document
    assert (summary["succeeded"], summary["failed"]) == (good_lines, len(BAD))
    assert simulator.stats()["requests"] == good_lines + 1  # and nothing else was ever asked


def test_a_batch_that_cannot_begin_says_why_and_queues_nothing(
    env: dict[str, str], tmp_path: Path
) -> None:
    good, empty, utf16 = tmp_path / "good", tmp_path / "empty", tmp_path / "utf16"
    good.write_text('{"prompt": "x"}\n')
    empty.touch()
    utf16.write_text('{"prompt": "x"}\n', encoding="utf-16")
    (tmp_path / "folder").mkdir()
    link = tmp_path / "link"
    link.symlink_to(good)
    out = tmp_path / "out"
    no_server = f"127.0.0.1:{free_port()}"
    cases: list[tuple[Path, Path, dict[str, str], int, str]] = [
        (empty, out, {}, 2, "has no lines"),
        (utf16, out, {}, 2, "UTF-16"),
        (tmp_path / "folder", out, {}, 2, "no file"),
        (tmp_path / "missing", out, {}, 2, "No such file"),
        (good, good, {}, 2, "the input itself"),
        (good, link, {}, 2, "the input itself"),
        (good, tmp_path / "folder", {}, 2, "folder"),
        (good, tmp_path / "no" / "out", {}, 2, "no folder"),
        (good, out, {"HEADGATE_REDIS_URL": f"redis://{no_server}/0"}, 3, "Redis"),
        (good, out, {"HEADGATE_DATABASE_URL": f"postgresql://u@{no_server}/x"}, 3, "database"),
    ]
    for source, output, others, code, fault in cases:
        ended = headgate(["batch", "run", source, "-o", output], {**env, **others})
        assert ended.code == code, (source, output, ended)
        assert fault in ended.err
        assert "Traceback" not in ended.err
        assert ended.out == ""
    assert good.read_text() == '{"prompt": "x"}\n'
    assert installation.read_books(env["HEADGATE_DATABASE_URL"]).jobs == {}


def test_an_output_without_write_permission_is_wrong_use(tmp_path: Path) -> None:
    """Root may write everywhere, unless it gives up that right (Linux) before the command."""
    source, locked = installation.write_prompts(tmp_path / "in", 1), tmp_path / "locked"
    (tmp_path / "there").touch()
    (tmp_path / "there").chmod(0o400)
    locked.mkdir(mode=0o500)
    for out in (locked / "out", tmp_path / "there"):
        words = ["batch", "run", str(source), "-o", str(out)]
        ended = subprocess.run(
            [sys.executable, "-c", WITHOUT_ROOTS_RIGHT, *words],
            env={**os.environ, "HEADGATE_HOME": str(tmp_path / "home")},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert ended.returncode == 2, ended
        assert "cannot be written: Permission denied" in ended.stderr
        assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_full_disk_loses_no_answer_and_resume_writes_them_all(
    env: dict[str, str], simulator_factory: Callable[..., Simulator], tmp_path: Path
) -> None:
    """The disk is full by a limit on the size of files; only the output is a file here."""
    source, out = installation.write_prompts(tmp_path / "in", 200), tmp_path / "out"
    simulator = simulator_factory("--latency-ms", "200")
    env |= {"HEADGATE_SIMULATOR_URL": simulator.url, "HEADGATE_CONCURRENCY": "10"}
    limit = "import resource as r; r.setrlimit(r.RLIMIT_FSIZE, (100_000, 100_000)); "
    run = ["batch", "run", str(source), "-o", str(out)]
    full = installation.command(run, env, tmp_path / "full.log")
    full.argv = [
        sys.executable,
        "-c",
        limit + "from headgate.producer.cli import main; main()",
        *run,
    ]
    (tmp_path / "full.log").touch()
    worker = installation.worker_process(env, tmp_path)
    with installation.ended_afterwards(worker, full):
        worker.start()
        full.start()
        assert installation.exit_code(full) == 1, full.log()
        assert "--resume" in full.log()
        assert "Traceback" not in full.log(), full.log_from("Traceback")
        assert 0 < installation.count_lines(out) < 200
        assert out.read_bytes().endswith(b"\n")
        assert headgate([*run, "--resume"], env).code == 0
        into_full = headgate(["batch", "run", source, "-o", "/dev/full"], env)
        worker.stop(20)
    installation.each_is_answered_once(out, 200)
    assert simulator.stats()["requests"] == 200
    assert into_full.code == 1
    assert "No space left" in into_full.err


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]
