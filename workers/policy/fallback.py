"""Which models a job may ask, in which order, and where it goes on after a pause. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias, assert_never

from headgate.shared.admission.grant import (
    Cached,
    Cheaper,
    Elsewhere,
    Grant,
    Held,
    Late,
    ModelDown,
    NoTicket,
    OverBudget,
    Shared,
    TooLarge,
)
from headgate.shared.catalog.catalog import Catalog
from headgate.shared.catalog.schema import Model, StaticText
from headgate.shared.job.request import Request
from headgate.shared.job.result import FailedAttempt
from headgate.shared.routing import capabilities
from headgate.workers.policy.retry import RetryLimits

Chain: TypeAlias = Sequence[Model | StaticText]

#: Codes after which the same model is not asked again (the classes in shared/errors.py say why).
FINAL = frozenset(
    {"invalid_request", "unknown_model", "context_length", "content_filtered", "authentication",
     "permission", "provider_quota"}
)  # fmt: skip

#: Codes after which no model is asked again: it may be paid for, and would only be paid for twice.
LAST = frozenset({"response_too_large"})


def chain(request: Request, first: Model, catalog: Catalog) -> Chain:
    """Return the models to ask in turn, all of which can do what the request needs."""
    return capabilities.chain(request, first, catalog)


def names(chain: Chain) -> frozenset[str]:
    """Return the names of the models in a chain, and `static` where it ends in a fixed answer."""
    return frozenset(one.name if isinstance(one, Model) else "static" for one in chain)


def reached(chain: Chain, failures: Sequence[FailedAttempt]) -> int:
    """Return the place of the model that failed last: the job has left those before it."""
    return max(0, _place(chain, failures[-1].model)) if failures else 0


def start(chain: Chain, failures: Sequence[FailedAttempt], grant: Grant) -> int:
    """Return the place in the chain at which the job goes on.

    A job that was granted a model it had waited for goes on with that model. If its deadline would
    pass in the queue for a model, it goes on with the next. If its model is down, the job meets it
    and leaves it out. A job that waited for a breaker starts again: any model may be up by now.
    """
    place = reached(chain, counted(failures))
    match grant:
        case Held(model=name, waits=True):
            granted = _place(chain, name)
            return place if granted < 0 else granted
        case ModelDown(waits=True) | Elsewhere(waits=True):
            return 0
        case Held(model=name) | ModelDown(model=name):
            return max(place, _place(chain, name))
        case Elsewhere(model=name):
            return max(place, _place(chain, name) + 1)
        case Cached() | Shared() | Late() | TooLarge() | OverBudget() | Cheaper() | NoTicket():
            return place
        case _:
            assert_never(grant)


def _place(chain: Chain, name: str) -> int:
    """Return the place of this model in the chain; -1 where it is not in it."""
    places = (n for n, one in enumerate(chain) if isinstance(one, Model) and one.name == name)
    return next(places, -1)


def counted(failures: Iterable[FailedAttempt]) -> list[FailedAttempt]:
    """Return the failures that were attempts: a model that was down was not asked."""
    return [failure for failure in failures if failure.code != "breaker_open"]


def tries(model: str, failures: Iterable[FailedAttempt]) -> int:
    """Return how many attempts at this model have failed."""
    return sum(1 for failure in counted(failures) if failure.model == model)


def asked_providers(failures: Iterable[FailedAttempt], catalog: Catalog) -> set[str]:
    """Return the providers at which an attempt has failed; models that are gone are left out."""
    names = {failure.model for failure in counted(failures)} & catalog.models.keys()
    return {catalog.models[name].provider for name in names}


def timed_out(model: str, failures: Iterable[FailedAttempt]) -> bool:
    """Return whether an attempt at this model has ended by a timeout."""
    return any(failure.code == "timeout" and failure.model == model for failure in failures)


def is_spent(model: str, failures: Sequence[FailedAttempt], limits: RetryLimits) -> bool:
    """Return whether the job may not ask this model again, or no model at all."""
    all_tries = counted(failures)
    if any(failure.code in LAST for failure in all_tries):
        return True
    own = [failure for failure in all_tries if failure.model == model]
    if len(all_tries) >= limits.max_attempts_per_job or len(own) >= limits.max_attempts:
        return True
    return bool(own and own[-1].code in FINAL)


def may_probe(unknown_tries: int, limits: RetryLimits) -> bool:
    """Return whether a job that has spent its tries may still wait for a breaker and probe it.

    Probes that cost nothing are free. `unknown_tries`: the attempts of which nobody knows whether
    they were billed. They are bounded, or a request that no model answers in time is paid for at
    each probe.
    """
    return unknown_tries < limits.max_attempts_per_job
