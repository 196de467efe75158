"""The parameters of lists and reports, checked here as the library checks them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from headgate.producer import moments
from headgate.producer.client.arguments import UsageKey
from headgate.producer.results.listing import JobFilters, JobQuery, check_filters, pair_of
from headgate.producer.usage.query import group_names, read_query
from headgate.producer.usage.report import UsageQuery
from headgate.shared.errors import InvalidRequest
from headgate.shared.job.ids import rfc3339

PAGE = 1000
"""Jobs of one page; a gateway lists no more at once."""

Query = dict[str, str]

_FILTERS = ("status", "tenant", "user", "model", "batch", "priority", "code", "before")


@dataclass(frozen=True, slots=True)
class JobPages:
    """The pages of a list of jobs. `left`: how many jobs are asked for yet."""

    query: Query
    left: int

    @classmethod
    def of(cls, asked: JobFilters) -> JobPages:
        """Return the first page; raise InvalidRequest."""
        filters = JobQuery(**asked)
        check_filters(filters)
        query = {
            name: str(value) for name in _FILTERS if (value := getattr(filters, name)) is not None
        }
        if filters.since is not None:
            query["since"] = rfc3339(moments.ms_of("since", filters.since)) or ""
        for name, value in (filters.metadata or {}).items():
            key, text = pair_of(name, value)
            query[f"metadata.{key}"] = text
        return cls(query, filters.limit)

    @property
    def parameters(self) -> Query:
        """The parameters of the page."""
        return {**self.query, "limit": str(min(self.left, PAGE))}

    def after(self, found: int, cursor: str | None) -> JobPages | None:
        """Return the page after one with so many jobs; None if there is none."""
        left = self.left - found
        if cursor is None or left <= 0:
            return None
        query = {name: value for name, value in self.query.items() if name != "before"}
        return replace(self, query={**query, "cursor": cursor}, left=left)


def usage_query(by: UsageKey | str | Sequence[UsageKey], asked: UsageQuery) -> Query:
    """Return the parameters of a report of usage; raise InvalidRequest."""
    if not isinstance(by, str | Sequence):
        raise InvalidRequest("by", by, 'give a name such as "tenant", or a list of names')
    names = group_names(by)
    period = read_query(asked)[0]
    since, until = period.as_text()
    only = {
        name: str(value)
        for name, value in asked.items()
        if value is not None and name not in ("since", "until")
    }
    ends = {"by": ",".join(names), "since": since, "until": until}
    return {**{name: value for name, value in ends.items() if value}, **only}
