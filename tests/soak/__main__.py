"""`python -m tests.soak [--minutes 20] [--seed N] [--database sqlite|postgresql]`.

Full rate, and a random kill at each turn, of everything but one worker and the canary. Afterwards
the books must balance, and what lived all the time must be as large as it was. Exit code 1 if not.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import time

from tests.soak.books import faults_in_logs, faults_of_books, faults_of_broker, open_jobs
from tests.soak.kills import ENDED_WELL, WAYS, Kill, deck, kill
from tests.soak.stage import IN_FLIGHT, Stage, stage
from tests.support.child import BUSY, ChildFailed, wait_until

WARM_S, SETTLE_S, DRAIN_S = 20.0, 6.0, 180.0
ASYNCIO_THREADS = min(32, (os.cpu_count() or 1) + 4)
"""How many threads asyncio starts at most for blocking work (concurrent.futures, Python 3.11)."""

GROWTH = {
    "rss_mb": 40.0, "canary_mb": 10.0, "fds": 8.0, "threads": ASYNCIO_THREADS,
    "valkey_clients": 20.0,
}  # fmt: skip
"""How much larger a measure may be in the last quarter than in the first.

On a busy machine a worker still grows to its size in the first quarter of a short run. It starts
threads for blocking work only when several steps of it meet."""

SILENT_S = 60.0 * BUSY


def soak(minutes: float, seed: int, database: str) -> list[str]:
    """What went wrong in a soak of that length; its timeline is printed meanwhile."""
    say(f"soak: {minutes:g} minutes, seed {seed}, {database}")
    targets = tuple(name for name in WAYS if name != "postgresql" or database == name)
    long = minutes >= 5
    every_s, lines = (60.0, 5_000) if long else (SETTLE_S, 1_500)
    with stage(database, batch_lines=lines, result_ttl_s=300 if long else 60) as scene:
        first_ends(scene)
        scene.live(WARM_S)
        warm_s = scene.watch.samples[-1].at_s
        end, kills = time.monotonic() + minutes * 60 - WARM_S, list[Kill]()
        for target, way in deck(seed, targets):
            began, since_s = time.monotonic(), scene.watch.samples[-1].at_s
            done = kill(scene, target, way)
            kills.append(done)
            scene.live(max(SETTLE_S / 2, every_s - (time.monotonic() - began)))
            say(scene.watch.line(since_s, f"{done.target} {done.way} ({done.may_be_unknown})"))
            if time.monotonic() >= end:
                break
        return verdict(scene, kills, warm_s + 2 * WARM_S if long else warm_s)


def first_ends(scene: Stage) -> None:
    """Both workers run, and have had all the jobs that they can hold."""
    until = time.monotonic() + 240
    while not (scene.watch.ended >= 2 * IN_FLIGHT and scene.steady_lives()):
        if time.monotonic() > until:
            raise ChildFailed(f"few jobs ended:\n{scene.steady.log_end()}\n{scene.flood.log_end()}")
        scene.live(0.5)


def verdict(scene: Stage, kills: list[Kill], warm_s: float) -> list[str]:
    """All has ended and was looked at; gives what is wrong."""
    faults = [one.fault for one in kills if one.fault]
    samples = scene.watch.samples
    for measure, slack in GROWTH.items():
        first, last = scene.watch.growth(measure, warm_s)
        say(f"{measure}: {first:.0f} in the first quarter, {last:.0f} in the last")
        if last - first > slack:
            faults.append(f"{measure} grew from {first:.0f} to {last:.0f}")
    memory = scene.watch.growth("valkey_mb", warm_s)
    say("Valkey with results still kept: {:.0f} MB, then {:.0f} MB".format(*memory))
    if scene.watch.longest_s > SILENT_S:
        faults.append(f"no job ended for {scene.watch.longest_s:.0f} s")
    faults += drain(scene)
    may_be_unknown = sum(one.may_be_unknown for one in kills)
    floods = 1 + sum(one.target in ("flood", "valkey", "postgresql") for one in kills)
    faults += faults_of_books(scene, may_be_unknown, floods) + faults_of_broker(scene)
    faults += scene.faults + scene.batches.faults + faults_in_logs(scene)
    took = sorted(int(ms) for _, ms in map(str.split, scene.canary_journal.read_text().splitlines())
                  if ms.isdecimal())  # fmt: skip
    batches = scene.batches
    say(
        f"{scene.watch.ended} jobs ended in {samples[-1].at_s:.0f} s; {len(kills)} kills; "
        f"{batches.done} batches in {batches.starts} starts; longest silence "
        f"{scene.watch.longest_s:.0f} s; canary p50 {took[len(took) // 2]} ms, max {took[-1]} ms"
    )
    return faults


def drain(scene: Stage) -> list[str]:
    """Producers have ended, then all jobs, then the workers; gives what did not go as it should."""
    faults = []
    for child in (scene.flood, scene.canary):
        if (code := child.stop(150)) != 0:
            faults.append(f"{child.argv[3]} ended with {code}:\n{child.log_end(10)}")
    scene.batches.wanted = False
    until = time.monotonic() + DRAIN_S * BUSY
    while (left := open_jobs(scene)) or not scene.batches.idle:
        if time.monotonic() > until:
            told = f"{left} jobs open, {scene.batches.told()}, long after the last kill"
            faults.append(told)
            break
        scene.supervise()
        scene.batches.tend()
        time.sleep(0.2)
    with scene.redis() as client:
        try:  # the last acknowledgements follow the ends
            wait_until(lambda: client.scard(scene.keys.present()) == 0, 30, "all to be forgotten")
        except TimeoutError as error:
            faults.append(str(error))
    if not scene.steady.running:
        faults.append(f"the steady worker died: {scene.steady.exit_code()}")
    for worker in (scene.steady, scene.mortal):
        code = worker.stop(60)
        if code not in ENDED_WELL:
            faults.append(f"a worker ended with {code}")
    return faults


def say(words: str) -> None:
    """One line of the report."""
    sys.stdout.write(words + "\n")
    sys.stdout.flush()


def main() -> int:
    """0 when nothing went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10_000))
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    given = parser.parse_args()
    faults = soak(given.minutes, given.seed, given.database)
    for fault in faults:
        say(f"FAULT {fault}")
    say("verdict: " + (f"{len(faults)} faults, seed {given.seed}" if faults else "all is right"))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
