"""The command line from outside: exit codes, what goes to which stream, bad input of every kind."""

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from headgate.producer.cli.commands import COMMANDS
from headgate.shared.broker.keys import Keys
from headgate.shared.servers import embedded
from tests.support.child import BUSY, wait_until
from tests.support.command import PROGRAM, headgate, start
from tests.support.played_worker import PlayedWorker
from tests.support.servers import ValkeyServer


@pytest.fixture
def env(valkey: ValkeyServer, tmp_path: Path) -> dict[str, str]:
    """Return the settings of an installation on an external Redis, with SQLite in its home."""
    home = tmp_path / "home"
    home.mkdir()
    return {
        "HEADGATE_REDIS_URL": valkey.url,
        "HEADGATE_HOME": str(home),
        "HEADGATE_DATABASE_URL": f"sqlite:///{home / 'headgate.db'}",
    }


@pytest.fixture
def ready(env: dict[str, str]) -> dict[str, str]:
    """Return the same settings after the tables were created."""
    assert headgate(["db", "upgrade"], env).code == 0
    return env


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    for flag in ("-h", "--help"):
        ended = headgate([name, flag], {})
        assert ended.code == 0, ended.err
        assert "usage:" in ended.out.lower()


def test_the_help_imports_no_server_and_no_vendor() -> None:
    """So it is quick: the libraries below take most of a second to import."""
    main = "from headgate.producer.cli import main"
    program = f"import sys\n{main}\ntry: main()\nfinally: print(*sys.modules)"
    argv = [sys.executable, "-c", program, "--help"]
    ended = subprocess.run(argv, capture_output=True, text=True, check=True)
    imported = set(ended.stdout.splitlines()[-1].split())
    assert "headgate.producer.cli.commands" in imported
    heavy = {"celery", "kombu", "redis", "sqlalchemy", "alembic", "pydantic", "openai", "anthropic"}
    assert imported & heavy == set()


WRONG_USE = {
    "no such command": (["nonsense"], "No such command"),
    "a command with a slip": (["submitt", "x"], "Did you mean 'submit'?"),
    "an id that is not UTF-8": (["result", "\udcff"], "not text in UTF-8"),
    "a rate that is no number": (["simulate", "--rpm", "x"], "'x' is not a whole number above 0"),
    "limits in a missing file": (["simulate", "--limits-file", "/no.toml"], "/no.toml: No such"),
    "a command of a later part": (["dashboard"], "No such command"),
    "an option that there is not": (["submit", "x", "--webhook"], "No such option"),
    "unknown model": (["submit", "x", "--model", "nonsense"], "nonsense"),
    "auto within no price": (["route", "x", "--max-usd-per-million", "0.0001"], "too expensive"),
    "unknown priority": (["submit", "x", "--priority", "soon"], "soon"),
    "negative max tokens": (["submit", "x", "--max-tokens", "-1"], "-1"),
    "max tokens that is no number": (["submit", "x", "--max-tokens", "NaN"], "NaN"),
    "empty prompt": (["submit", ""], "prompt"),
    "empty tenant": (["submit", "x", "--tenant", ""], "tenant"),
    "unknown job": (["result", "nonsense"], "no job"),
    "cancel of an unknown job": (["cancel", "nonsense"], "no job"),
    "negative timeout": (["result", "x", "--timeout", "-1"], "-1"),
    "timeout that is no number": (["result", "x", "--timeout", "nan"], "nan is no finite number"),
    "endless timeout": (["result", "x", "--timeout", "inf"], "inf is no finite number"),
    "samples of one job": (["submit", "hi", "--samples", "3"], "headgate batch run FILE --samples"),
    "too many samples": (["batch", "submit", "x", "--samples", "129"], "129"),
    "unknown status": (["jobs", "--status", "nonsense"], "nonsense"),
    "unknown moment": (["jobs", "--since", "nonsense"], "nonsense"),
    "limit out of range": (["jobs", "--limit", "0"], "limit"),
    "unknown queue": (["worker", "--queues", "nonsense"], "nonsense"),
    "workers out of range": (["up", "--workers", "0"], "0"),
    "a port without simulator": (["up", "--simulate-port", "8000"], "--simulate"),
    "dead letters without a name": (["dead", "drop"], "--all"),
    "an unknown dead letter": (["dead", "retry", "nonsense"], "nonsense"),
    "a catalog that is missing": (["catalog", "check", "/nonsense.toml"], "no such file"),
    "a catalog that is a folder": (["catalog", "check", "/"], "folder"),
    "a simulator's flag that does not exist": (["simulate", "--nonsense"], "nonsense"),
}


@pytest.mark.parametrize(("arguments", "fault"), WRONG_USE.values(), ids=WRONG_USE.keys())
def test_wrong_use_has_exit_code_2_and_names_the_fault_on_standard_error(
    ready: dict[str, str], arguments: list[str], fault: str
) -> None:
    ended = headgate(arguments, ready)
    assert ended.code == 2, ended
    assert fault in ended.err
    assert ended.out == ""
    assert "Traceback" not in ended.err


def test_a_wrong_setting_has_exit_code_2_and_is_named(env: dict[str, str]) -> None:
    for name, value in (("HEADGATE_CONCURRENCY", "many"), ("HEADGATE_NONSENSE", "1")):
        ended = headgate(["submit", "x"], {**env, name: value})
        assert ended.code == 2
        assert name in ended.err


def test_servers_that_cannot_be_reached_have_exit_code_3(
    ready: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "in").write_text('{"prompt": "x"}\n')
    commands: tuple[list[str | Path], ...] = (
        ["submit", "x"],
        ["limits"],
        ["batch", "run", tmp_path / "in", "-o", tmp_path / "out"],
        ["worker"],
        ["up"],
        ["dead", "list"],
    )
    no_redis = {**ready, "HEADGATE_REDIS_URL": "redis://:hidden@127.0.0.1:1/0"}
    no_database = {**ready, "HEADGATE_DATABASE_URL": "postgresql://u:hidden@127.0.0.1:1/x"}
    for settings in (no_redis, no_database):
        for arguments in commands:
            ended = headgate(arguments, settings)
            assert ended.code == 3, ended
            assert "cannot be reached" in ended.err
            assert "hidden" not in ended.err
            assert "Traceback" not in ended.err


def test_a_home_that_cannot_be_used_has_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ended = headgate(["submit", "x"], {"HEADGATE_HOME": str(tmp_path / "file")})
    assert ended.code == 2
    assert "HEADGATE_HOME" in ended.err


def test_a_database_without_tables_says_what_to_run(
    valkey: ValkeyServer, postgres_url: str, tmp_path: Path
) -> None:
    env = {"HEADGATE_REDIS_URL": valkey.url, "HEADGATE_DATABASE_URL": postgres_url}
    ended = headgate(["submit", "x"], env)
    assert ended.code == 3
    assert "headgate db upgrade" in ended.err
    assert headgate(["db", "check"], env).code == 1
    assert headgate(["db", "upgrade"], env).code == 0
    assert headgate(["db", "check", "--json"], env).document["ok"] is True
    assert headgate(["submit", "x"], env).code == 0
    assert headgate(["db", "downgrade", "base", "--yes"], env).code == 0
    assert headgate(["db", "check"], env).code == 1


def test_a_job_is_submitted_waited_for_and_listed(ready: dict[str, str]) -> None:
    submitted = headgate(["submit", "hello", "--tenant", "acme", "--priority", "bulk"], ready)
    assert submitted.code == 0
    job_id = submitted.out.strip()
    assert headgate(["result", job_id], ready).code == 1
    timed_out = headgate(["result", job_id, "--timeout", "0.2"], ready)
    assert timed_out.code == 1
    assert "has not ended" in timed_out.err
    [listed] = headgate(["jobs", "--tenant", "acme", "--json"], ready).out.splitlines()
    assert json.loads(listed)["id"] == job_id
    with PlayedWorker(ready["HEADGATE_DATABASE_URL"], ready["HEADGATE_REDIS_URL"]):
        waited = headgate(["result", job_id, "--wait"], ready)
        assert (waited.code, waited.out) == (0, "echo: hello\n")
        marked = headgate(["submit", "--wait", "-"], ready, stdin=b"\xef\xbb\xbfgr\r\n")
        assert marked.out == "echo: gr\n", "the byte order mark is no part of the prompt"
        piped = headgate(["submit", "--wait", "-"], ready, stdin="grüß\n".encode())
        assert (piped.code, piped.out) == (0, "echo: grüß\n")
        whole = headgate(["submit", "--wait", "--json"], ready, stdin=b"again")
        assert whole.document["status"] == "succeeded"
    assert headgate(["jobs", "--status", "succeeded", "--since", "1h"], ready).out.count("\n") == 5


def test_a_failed_job_has_exit_code_1_and_its_error_on_standard_error(
    ready: dict[str, str],
) -> None:
    servers = ready["HEADGATE_DATABASE_URL"], ready["HEADGATE_REDIS_URL"]
    with PlayedWorker(*servers, fails=lambda _: True):
        ended = headgate(["submit", "x", "--wait"], ready)
        assert (ended.code, ended.out) == (1, "")
        assert "provider_error: played fault" in ended.err


def test_a_waiting_job_is_cancelled_once(ready: dict[str, str]) -> None:
    job_id = headgate(["submit", "x"], ready).out.strip()
    assert headgate(["cancel", job_id], ready).code == 0
    assert headgate(["result", job_id], ready).code == 1
    assert headgate(["cancel", job_id], ready).code == 0


def test_several_jobs_are_cancelled_at_once(ready: dict[str, str]) -> None:
    ids = [headgate(["submit", text], ready).out.strip() for text in ("x", "y", "z")]
    ended = headgate(["cancel", *ids[:2]], ready)
    assert (ended.code, ended.out.split()[::3]) == (0, ids[:2])
    found = headgate(["cancel", *ids, "--json"], ready)
    assert found.code == 0
    assert [one["id"] for one in found.document] == ids
    assert headgate(["cancel", ids[0], "--json"], ready).document["id"] == ids[0]


def test_standard_input_that_is_not_utf8_or_too_large_is_refused(ready: dict[str, str]) -> None:
    for data, fault in ((b"\xff", "not UTF-8"), (b"x" * 11_000_000, "10 MB"), (b"", "prompt")):
        ended = headgate(["submit", "-"], ready, stdin=data)
        assert ended.code == 2
        assert fault in ended.err


def test_lone_surrogates_in_an_argument_are_refused(ready: dict[str, str]) -> None:
    ended = subprocess.run(
        [*PROGRAM, "submit", b"\xff"], env={**os.environ, **ready}, capture_output=True, check=False
    )
    assert ended.returncode == 2
    assert b"Traceback" not in ended.stderr


def test_a_command_that_waits_without_a_worker_says_so_and_ctrl_c_ends_it(
    ready: dict[str, str],
) -> None:
    command = start(["submit", "x", "--wait"], ready)
    assert command.stderr is not None
    assert b"no worker answers" in command.stderr.readline()
    command.send_signal(signal.SIGINT)
    _, output = command.communicate(timeout=20 * BUSY)
    assert command.returncode == 130
    assert b"stays queued" in output
    assert b"Traceback" not in output


def test_a_reader_that_goes_away_is_no_fault(ready: dict[str, str]) -> None:
    command = subprocess.Popen(
        [*PROGRAM, "models", "--json"],
        env={**os.environ, **ready},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert command.stdout is not None
    command.stdout.close()
    assert command.stderr is not None
    output = command.stderr.read()
    command.stderr.close()
    assert command.wait(30 * BUSY) == 0
    assert output == b""


def test_secrets_are_masked_in_the_settings(env: dict[str, str]) -> None:
    secret = {"OPENAI_API_KEY": "sk-very-secret", "HEADGATE_REDIS_URL": "redis://:hidden@h/0"}
    for flags in ([], ["--json"]):
        ended = headgate(["settings", *flags], {**env, **secret})
        assert ended.code == 0
        assert "OPENAI_API_KEY" in ended.out
        assert "very-secret" not in ended.out
        assert "hidden" not in ended.out


def test_models_are_listed_with_their_prices(env: dict[str, str]) -> None:
    found = [json.loads(line) for line in headgate(["models", "--json"], env).out.splitlines()]
    mini = next(model for model in found if model["name"] == "gpt-4o-mini")
    assert mini["usd_per_million_input_tokens"] == "0.15"
    assert len(found) >= 24
    names = ["ft:gpt-4o:acme::1", "gpt-4o-2024-05-13"]
    asked = headgate(["models", *names, "--json"], env).out.splitlines()
    shown = [json.loads(line) for line in asked]
    assert [(one["name"], one["variant_of"]) for one in shown] == [(n, "gpt-4o") for n in names]
    prices = [one["usd_per_million_input_tokens"] for one in shown]
    assert prices == [None, "5"], "by the full name, never by that of the model"
    unknown = headgate(["models", "gpt-4o-minni"], env)
    assert unknown.code == 2
    assert "did you mean gpt-4o-mini?" in unknown.err


def test_each_fault_of_a_catalog_is_reported(env: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "catalog.toml"
    path.write_text('[pools."openai/gpt-4o-mini"]\nrpn = 5\n[models.x]\nprovider = "openai"\n')
    ended = headgate(["catalog", "check", path], env)
    assert ended.code == 2
    assert "rpn" in ended.err
    assert 'models."x".class' in ended.err
    assert str(path) in ended.err


def test_dead_letters_are_listed_retried_and_dropped(
    ready: dict[str, str], valkey: ValkeyServer
) -> None:
    with valkey.client(decode_responses=False) as client:
        for n in range(3):
            letter = f"17000000000{n:02d}\nheadgate.bulk.fast\nno JSON\n<{n}>\n\n"
            client.lpush(Keys().dead(), letter.encode())
        listed = headgate(["dead", "list", "--json"], ready).out.splitlines()
        assert [json.loads(line)["reason"] for line in listed] == ["no JSON"] * 3
        first, second = (json.loads(line)["id"] for line in listed[:2])
        assert headgate(["dead", "retry", first], ready).code == 0
        assert client.lrange(Keys().queue("headgate.bulk.fast"), 0, -1) == [b"<2>\n\n"]
        assert headgate(["dead", "drop", second], ready).code == 0
        assert client.llen(Keys().dead()) == 1
        kept = headgate(["dead", "drop", "--all"], ready, stdin=b"n\n")
        assert (kept.code, kept.out) == (130, "")
        assert "Delete 1 dead letter? Their messages are lost." in kept.err
        assert "use --yes" in headgate(["dead", "drop", "--all"], ready, stdin=b"").err
        dropped = headgate(["dead", "drop", "--all", "--json", "--yes"], ready)
        assert (dropped.code, dropped.document["state"]) == (0, "dropped")
        assert client.llen(Keys().dead()) == 0


def test_an_internal_fault_names_its_log_and_prints_no_traceback(
    ready: dict[str, str], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    (home / "headgate.db").write_bytes(b"this is no database" * 100)
    ended = headgate(["jobs"], ready)
    assert ended.code in (1, 3)
    assert "Traceback" not in ended.err
    if "internal fault" in ended.err:
        log = home / "logs" / "headgate.log"
        assert str(log) in ended.err
        assert "Traceback" in log.read_text()
        assert stat.S_IMODE(log.parent.stat().st_mode) == 0o700


def test_the_embedded_default_needs_nothing_and_leaves_nothing_running(tmp_path: Path) -> None:
    home = Path(tmp_path / "h")
    env = {"HEADGATE_HOME": str(home)}
    submitted = headgate(["submit", "x"], env)
    assert submitted.code == 0, submitted.err
    assert headgate(["jobs", "--json"], env).document["status"] == "queued"
    wait_until(lambda: embedded.processes(home) is None, 30, "the keeper to end")
