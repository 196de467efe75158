"""Two installations that share the limit of one provider's key."""

from __future__ import annotations

from tests.bench.governor.load import Span
from tests.bench.table import Table
from tests.support.servers import ValkeyServer, short_folder
from tests.support.two_installations import Split, other_database, share_limit

COLUMNS = ("", "of an omniscient sender", "the first", "the second", "refused per 100 accepted")

SPLITS = (
    Split("half each", (0.5, 0.5)),
    Split("half each, no headers", (0.5, 0.5), "none"),
    Split("half each, the second is idle", (0.5, 0.5), both_work=False),
    Split("the whole limit in both", (1.0, 1.0)),
    Split("the whole limit in both, no headers", (1.0, 1.0), "none"),
)


def installations(span: Span) -> Table:
    """By what each of the two catalogs says of the limit."""
    found = Table(f"two installations, one key, {span.seconds:g} s each", COLUMNS)
    for split in SPLITS:
        with (
            short_folder() as folder,
            ValkeyServer(folder) as server,
            server.client(decode_responses=False) as first,
            other_database(server) as second,
        ):
            one = share_limit((first, second), split, settle_s=span.settle_s, seconds=span.seconds)
        shares = (f"{share:.1%}" for share in (one.share, *one.each))
        found.add(split.name, *shares, f"{one.refused_per_100:.2f}")
    found.note = "Two workers each, on a computed clock, with the real scripts."
    return found
