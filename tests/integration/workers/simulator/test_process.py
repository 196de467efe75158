"""The simulator as a process: its flags, its own addresses, its ways to end."""

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.child import BUSY

MODULE = [sys.executable, "-m", "headgate.workers.simulator"]
CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]}


@contextmanager
def started(*flags: str) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    with subprocess.Popen(
        [*MODULE, *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("simulator listening on http://127.0.0.1:")
            yield line.split()[-1], process
        finally:
            if process.poll() is None:
                process.kill()


def call(url: str, body: Any = None, raw: bytes | None = None) -> tuple[int, Any]:
    sent = raw if raw is not None else None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=sent)  # noqa: S310  a loopback URL
    request.add_header("content-type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=10 * BUSY) as reply:  # noqa: S310
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, json.load(refused)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_even_with_a_caller_waiting(number: int, tmp_path: Path) -> None:
    ready = tmp_path / "url"
    with started("--latency-ms", "60000", "--ready-file", str(ready)) as (url, process):
        assert ready.read_text().strip() == url
        host, port = url.removeprefix("http://").split(":")
        body = json.dumps(CHAT)
        with socket.create_connection((host, int(port)), timeout=5 * BUSY) as caller:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}"
            caller.sendall(f"{head}\r\n\r\n{body}".encode())
            process.send_signal(number)
            assert process.wait(5 * BUSY) == 0


def test_it_ends_when_its_parent_is_gone() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as parent:
        try:
            with started("--with-parent", str(parent.pid)) as (url, process):
                assert call(f"{url}/health") == (200, {"status": "ok"})
                parent.kill()
                assert process.wait(10 * BUSY) == 0
        finally:
            parent.kill()


def test_its_own_addresses_show_and_change_what_it_does() -> None:
    with started("--rpm", "600000") as (url, _):
        for _ in range(3):
            assert call(f"{url}/v1/chat/completions", CHAT)[0] == 200
        stats = call(f"{url}/_stats")[1]
        assert stats["accepted"] == stats["answered"] == 3
        assert stats["prompts"]["distinct"] == 1
        pool = stats["pools"]["openai/gpt-4o-mini"]
        assert (pool["accepted"], pool["charged"]["requests"]) == (3, 3)
        assert abs(pool["last_accepted_s"] - time.time()) < 60
        assert stats["prompts"]["top"][0]["paid"] == 3
        rules = [{"match": "hello", "fault": "503", "times": 1}]
        assert call(f"{url}/_script", rules) == (200, {"rules": 1})
        assert call(f"{url}/v1/chat/completions", CHAT)[0] == 503
        assert call(f"{url}/v1/chat/completions", CHAT)[0] == 200
        assert call(f"{url}/_limits", {"models": {"gpt-4o-mini": {"tpm": 1}}})[0] == 200
        status, body = call(f"{url}/v1/chat/completions", CHAT)
        assert (status, body["error"]["type"]) == (429, "tokens")
        assert call(f"{url}/_limits", {"rmp": 1})[0] == 400
        assert call(f"{url}/_reset", {})[0] == 200
        assert call(f"{url}/_stats")[1]["requests"] == 0


def test_bad_requests_are_refused_in_the_vendors_shapes() -> None:
    with started() as (url, _):
        status, body = call(f"{url}/v1/chat/completions", raw=b"{nonsense")
        assert (status, body["error"]["type"]) == (400, "invalid_request_error")
        status, body = call(f"{url}/v1/messages", raw=b"{nonsense")
        assert (status, body["type"], body["error"]["type"]) == (
            400,
            "error",
            "invalid_request_error",
        )
        status, body = call(f"{url}/v1/nothing", {})
        assert (status, body["error"]["code"]) == (404, "unknown_url")
        assert call(f"{url}/v1/chat/completions")[0] == 405
        large = b'{"model":"' + b"x" * (33 * 1024 * 1024) + b'"}'
        status, body = call(f"{url}/v1/messages", raw=large)
        assert (status, body["error"]["type"]) == (413, "request_too_large")
        odd: list[Any] = [
            [],
            {"messages": 1, "model": "m"},
            CHAT | {"stream_options": 5, "stream": True},
            CHAT | {"tools": [5]},
            CHAT | {"messages": [{"role": "assistant", "tool_calls": 7}]},
            CHAT | {"response_format": {"type": "json_schema", "json_schema": 5}},
        ]
        for body in odd:
            assert call(f"{url}/v1/chat/completions", body)[0] == 400, body
        deep = b"[" * 5000 + b"]" * 5000
        assert call(f"{url}/v1/chat/completions", raw=deep)[0] == 400


def test_faults_by_rate_are_the_same_for_the_same_seed() -> None:
    def statuses(seed: str) -> list[int]:
        with started("--fail", "500=0.3,429=0.2", "--seed", seed) as (url, _):
            return [call(f"{url}/v1/chat/completions", CHAT)[0] for _ in range(40)]

    first = statuses("7")
    assert statuses("7") == first
    assert set(first) == {200, 429, 500}


def test_a_log_line_is_written_for_each_request_and_holds_no_prompt() -> None:
    with started("--json-log") as (url, process):
        call(f"{url}/v1/chat/completions", CHAT)
        process.terminate()
        _, said = process.communicate(timeout=5 * BUSY)
        line = json.loads(said.splitlines()[0])
        assert (line["status"], line["model"]) == (200, "gpt-4o-mini")
        assert "hello" not in said


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--fail", "bogus=0.1"], "bogus"),
        (["--limit", "m:rpm=x"], "rpm"),
        (["--rpm", "0"], "--rpm"),
        (["--port", "70000"], "--port"),
        (["--latency-ms", "nan"], "--latency-ms"),
        (["--output-tokens", "0"], "--output-tokens"),
        (["--headers", "some"], "--headers"),
        (["--ramp-floor", "-1"], "--ramp-floor"),
        (["--ramp-window-s", "inf"], "--ramp-window-s"),
        (["--ramp-growth", "2"], "--ramp-floor"),
        (["--output-tokens", "1e300"], "--output-tokens"),
        (["--output-tokens", "20", "--output-sigma", "1000"], "--output-sigma"),
        (["--output-sigma", "1"], "--output-tokens"),
        (["--latency-sigma", "many"], "'many'"),
        (["--price", "m:input=x"], "x"),
        (["--limits-file", "does-not-exist.toml"], "does-not-exist.toml"),
    ],
)
def test_a_wrong_flag_is_named_and_ends_with_2(flags: list[str], named: str) -> None:
    ended = subprocess.run([*MODULE, *flags], capture_output=True, text=True, timeout=20 * BUSY)
    assert ended.returncode == 2
    assert named in ended.stderr
    assert "Traceback" not in ended.stderr


def test_growth_lengths_and_headers_are_set_by_flags() -> None:
    flags = ["--ramp-floor", "6", "--ramp-window-s", "300", "--headers", "none", "--rpm", "600"]
    with started(*flags, "--output-tokens", "20", "--output-sigma", "0") as (url, _):
        status, body = call(f"{url}/v1/chat/completions", CHAT)
        assert (status, body["usage"]["completion_tokens"]) == (200, 20)
        status, body = call(f"{url}/v1/chat/completions", CHAT)
        assert (status, body["error"]["code"]) == (429, "slow_down")


def test_a_port_that_is_taken_is_named_and_ends_with_2() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = subprocess.run(
            [*MODULE, "--port", port], capture_output=True, text=True, timeout=20 * BUSY
        )
    assert ended.returncode == 2
    assert port in ended.stderr
    assert "Traceback" not in ended.stderr


def test_limits_come_from_a_file_and_flags_lie_over_it(tmp_path: Path) -> None:
    file = tmp_path / "limits.toml"
    file.write_text('rpm = 100\ntpm = 5000\n[models."gpt-*"]\nrpm = 7\n')
    with started("--limits-file", str(file), "--rpm", "200", "--limit", "m:tpm=9") as (url, _):
        shown = call(f"{url}/_limits", {})[1]
    assert (shown["rpm"], shown["tpm"]) == (200, 5000)
    assert shown["models"]["gpt-*"]["rpm"] == 7
    assert shown["models"]["m"]["tpm"] == 9
