"""Two installations share the limit of one key if each catalog names its part of it."""

import pytest

from headgate.workers.simulator.rate_headers import HeaderStyle
from tests.support.servers import ValkeyServer
from tests.support.two_installations import Split, other_database, share_limit


@pytest.mark.parametrize("is_shallow", [False, True])
@pytest.mark.parametrize("headers", ["bucket", "none"])
def test_halves_of_a_limit_are_used_up_without_refusals(
    valkey: ValkeyServer, headers: HeaderStyle, is_shallow: bool
) -> None:
    """Also where the headers show that more is there: it is the other's."""
    with (
        valkey.client(decode_responses=False) as first,
        other_database(valkey) as second,
    ):
        split = Split("half each", (0.5, 0.5), headers, is_shallow=is_shallow)
        found = share_limit((first, second), split, settle_s=10, seconds=20)
    assert found.share > 0.9
    assert min(found.each) > 0.44
    assert max(found.each) < 0.52
    assert found.refused_per_100 < 0.5
