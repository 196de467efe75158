"""The release before, whose results have no `message`, reads what today's release stores."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from headgate.shared.broker.results import celery_record
from headgate.shared.job.result import Reply, Result, Usage
from headgate.shared.job.result_text import encode_result
from headgate.workers.stages.cache_entry import CacheEntry, encode
from tests.support.git_trees import tree_of

WITHOUT_MESSAGE = "4ef1b56"
"""The last commit whose results have no `message`. Its only package is `headgate`."""

#: Reads what today's release stores of an answer, and prints what it finds.
READ = """
import base64, json, sys
from headgate.producer.batch.formats import output_line
from headgate.shared.job.result import Result
from headgate.workers.stages.cache_entry import decode
row, record, entry = map(base64.b64decode, sys.argv[1:])
by_celery = json.loads(record)["result"]
assert Result.from_json(json.loads(row)) == Result.from_json(by_celery)
line = json.loads(output_line(1, "b", "c", json.loads(row)))
reply = decode(entry, 0).reply
print(json.dumps([
    Result.from_json(json.loads(row)).content, by_celery["content"], reply.content,
    line["response"]["body"]["choices"][0]["message"]["content"],
]))
"""

LONG = "an answer " * 30
CHAT: dict[str, Any] = {"choices": [{"message": {"role": "assistant", "content": LONG}}]}
BLOCKS: dict[str, Any] = {"content": [{"type": "thinking"}, {"type": "text", "text": LONG}]}


@pytest.mark.parametrize("message", [CHAT, BLOCKS], ids=["openai", "anthropic"])
def test_a_release_without_messages_reads_what_todays_stores(
    message: dict[str, Any], tmp_path: Path
) -> None:
    job_id = "019aa000-0000-7000-8000-000000000000"
    result = Result(job_id, "succeeded", "m", content=LONG, finish_reason="stop", message=message)
    entry = CacheEntry(Reply(LONG, "stop", Usage(1), message=message), "openai", 1, "m")
    row = encode_result(result)
    assert "message_text_at" in row
    stored = [row.encode(), celery_record(result), encode(entry)]
    folder = tree_of(WITHOUT_MESSAGE, tmp_path / "before")
    argv = [sys.executable, "-c", READ, *(base64.b64encode(one).decode() for one in stored)]
    env = {**os.environ, "PYTHONPATH": str(folder)}
    read = subprocess.run(argv, env=env, cwd=tmp_path, capture_output=True, check=False)
    assert read.returncode == 0, read.stderr.decode()
    assert json.loads(read.stdout) == [LONG] * 4
