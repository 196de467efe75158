"""Which models a job may ask, in order, and where it stands after a pause. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from headgate.shared.admission.grant import Grant
from headgate.shared.catalog.catalog import Catalog
from headgate.shared.catalog.schema import Model, StaticText
from headgate.shared.job.request import Request
from headgate.shared.job.result import FailedAttempt
from headgate.shared.routing import capabilities
from headgate.workers.policy.retry import RetryLimits

#: Codes after which the same model is not asked again (the classes in shared/errors.py say why).
FINAL = frozenset(
    {"invalid_request", "unknown_model", "context_length", "content_filtered", "authentication",
     "permission", "provider_quota"}
)  # fmt: skip


def chain(request: Request, first: Model, catalog: Catalog) -> tuple[Model | StaticText, ...]:
    """The models to ask in turn, all of which can do what the request needs; see shared/policy."""
    return capabilities.chain(request, first, catalog)


def names(chain: Iterable[Model | StaticText]) -> frozenset[str]:
    """Those of the models in a chain, and `static` where it ends in a fixed answer."""
    return frozenset(one.name if isinstance(one, Model) else "static" for one in chain)


def reached(chain: Sequence[Model | StaticText], failures: Sequence[FailedAttempt]) -> int:
    """The place in the chain of the model that failed last: those before it were left for good."""
    last = failures[-1].model if failures else None
    return next(
        (n for n, model in enumerate(chain) if isinstance(model, Model) and model.name == last), 0
    )


def start(
    chain: Sequence[Model | StaticText], failures: Sequence[FailedAttempt], granted: Grant
) -> int:
    """The place in the chain to go on at.

    A job that was granted a model it had waited for goes on with that; one whose deadline would
    pass in line for a model goes on with the next. One whose model is down finds it left out there;
    one that had waited for a breaker begins anew, for any model may be up again.
    """
    place = reached(chain, counted(failures))
    if granted.waits and granted.way in ("broken", "elsewhere"):
        return 0
    for n, model in enumerate(chain):
        if isinstance(model, Model) and model.name == granted.model:
            if granted.way == "elsewhere":
                return max(place, n + 1)
            if granted.way == "held":
                return n if granted.waits else max(place, n)
            if granted.way == "broken":
                return max(place, n)
    return place


def counted(failures: Iterable[FailedAttempt]) -> list[FailedAttempt]:
    """Those that were attempts: a model that was down was not asked."""
    return [failure for failure in failures if failure.code != "breaker_open"]


def tries(model: str, failures: Iterable[FailedAttempt]) -> int:
    """How often this model has failed the job."""
    return sum(1 for failure in counted(failures) if failure.model == model)


def is_spent(model: str, failures: Sequence[FailedAttempt], limits: RetryLimits) -> bool:
    """True when the job must not ask this model again, or no model at all."""
    all_tries = counted(failures)
    own = [failure for failure in all_tries if failure.model == model]
    if len(all_tries) >= limits.max_attempts_per_job or len(own) >= limits.max_attempts:
        return True
    return bool(own and own[-1].code in FINAL)
