"""Failed lines of a batch are asked again once the cause is mended, with a real worker."""

import json
from pathlib import Path

from tests.support.command import headgate
from tests.support.servers import Simulator, short_folder


def test_a_batch_that_failed_at_the_provider_is_asked_again_under_the_same_ids(
    tmp_path: Path,
) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(f'{{"prompt": "prompt {n}"}}\n' for n in range(3)))
    refusing, answering = (Simulator(tmp_path / name, flags) for name, flags in (
        ("refusing", ("--fail", "400=1")), ("answering", ()),
    ))  # fmt: skip
    run = ["batch", "run", str(source), "-o", str(out), "--model", "gpt-4o-mini"]
    with short_folder() as home, refusing, answering:
        env = {"HEADGATE_HOME": str(home), "HEADGATE_SIMULATOR_URL": refusing.url}
        assert headgate(run, env, timeout_s=180).code == 1
        before = [json.loads(line) for line in out.read_text().splitlines()]
        assert {line["error"]["code"] for line in before} == {"invalid_request"}
        env["HEADGATE_SIMULATOR_URL"] = answering.url
        again = headgate([*run, "--retry-failed"], env, timeout_s=180)
        assert again.code == 0, again.err
        assert "failed jobs queued again: 3 (3 invalid_request)" in again.err
        after = [json.loads(line) for line in out.read_text().splitlines()]
        assert [line["error"] for line in after] == [None] * 3
        ids = [{line["headgate"]["job_id"] for line in lines} for lines in (before, after)]
        assert ids[0] == ids[1]
        assert {line["headgate"]["attempts"] for line in after} == {2}, "both are on record"
