"""The rights that a Redis user needs: asked for at the start, and given by deploy/redis.acl."""

import re

from headgate.shared.servers.redis_check import USED, WISHED
from tests import ROOT
from tests.support.redis_forms import ACL_FILE

LUA = ROOT / "shared" / "broker" / "lua"

asked = {line.split()[0] for line in (*USED, *WISHED)}


def test_every_command_of_a_script_is_asked_for_when_a_worker_starts() -> None:
    texts = "".join(path.read_text() for path in LUA.rglob("*.lua"))
    sent = set(re.findall(r"(?:redis\.p?call|on_list|put_in_chunks)\('([A-Z]+)'", texts))
    assert len(sent) > 20
    assert sent - asked == set()


def test_every_command_that_is_asked_for_is_in_the_acl_file() -> None:
    given = set(re.findall(r"\+(\w+)", ACL_FILE.read_text().upper()))
    assert asked - given == set()
