"""Who used what: the same as the ledger and the bill, to the last job and pico-dollar."""

import json
import random
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

from headgate import Client
from headgate.shared.database.engine import open_engine, reading
from headgate.shared.database.usage_rollup import sum_day, summed
from headgate.shared.job.ids import now_ms
from headgate.shared.settings import Settings
from tests.support import installation
from tests.support.command import headgate
from tests.support.servers import Simulator

MODELS = ("gpt-4o-mini", "gpt-4o", "claude-haiku-4-5")
COUNT = 120


def write_mixed(path: Path) -> None:
    """Prompts of several users, tenants, models and lengths; some equal, some that fail."""
    chance = random.Random(7)  # noqa: S311 (no secret)
    with path.open("w") as file:
        for n in range(COUNT):
            words = "word " * chance.randrange(1, 60) + str(chance.randrange(COUNT // 2))
            if n % 12 == 0:
                words += " [[fault:400]]"
            elif n % 12 == 1:
                words += " [[fault:once:500]]"
            body: dict[str, Any] = {"prompt": words, "model": MODELS[n % 3]}
            body |= {"tenant": f"t{n % 5}", "user": f"u{n % 7}", "params": {"max_tokens": 40}}
            file.write(json.dumps(body) + "\n")


def test_usage_adds_up_to_the_last_job_and_the_last_pico_dollar(
    simulator_factory: Callable[..., Simulator], tmp_path: Path
) -> None:
    simulator = simulator_factory()
    env = {
        "HEADGATE_HOME": str(tmp_path / "home"),
        "HEADGATE_SIMULATOR_URL": simulator.url,
        "HEADGATE_BACKOFF_S": "0.05",
    }
    write_mixed(tmp_path / "in.jsonl")
    run = headgate(["batch", "run", tmp_path / "in.jsonl", "--json", "-o", tmp_path / "out"], env)
    assert run.code == 1, run.err  # some were to fail
    books = installation.read_books(installation.database_url(env))
    billed = Decimal(simulator.stats()["money"]["billed_usd"])

    told = headgate(["usage", "--by", "user,model,batch,day", "--json"], env).document
    total = told["total"]
    assert total["requests"] == books.audit_lines == COUNT
    assert Decimal(total["cost_usd"]) == books.ledger_usd == billed > 0
    for name in ("succeeded", "failed", "attempts", "input_tokens", "output_tokens"):
        assert total[name] == run.document[name], name
        assert sum(row[name] for row in told["rows"]) == total[name]
    assert sum(Decimal(row["cost_usd"]) for row in told["rows"]) == billed
    assert total["failed"] == COUNT // 12

    with Client(Settings(home=tmp_path / "home")) as client:
        assert client.usage("user,model,batch,day").as_json() == told
        # The same from sums as from lines, as on the day after.
        engine = open_engine(installation.database_url(env))
        for day in {row["day"] for row in told["rows"]}:
            assert sum_day(engine, int(day.replace("-", "")), now_ms())
        with reading(engine) as connection:
            assert sum(summed(connection).values()) == COUNT
        engine.dispose()
        assert client.usage("user,model,batch,day").as_json() == told
