"""The words in which reasons to wait are told: amounts, and what would help."""

from __future__ import annotations

from collections.abc import Sequence

from headgate.producer.waits.callers import BudgetWait
from headgate.producer.waits.levels import BucketLevel, GateState
from headgate.shared.admission.scopes import shown
from headgate.shared.broker.living import LivingWorker
from headgate.shared.cost.price import usd_text
from headgate.shared.job.ids import LATEST_MS, rfc3339
from headgate.shared.job.waiting_for import NOTHING

MORE_WORKERS = "start more workers, or raise HEADGATE_CONCURRENCY"
EQUAL_JOB = f"{NOTHING}: it gets the same answer"
DUE = f"{NOTHING}: it goes on by itself"
NO_KEY = "no worker has one"
SEE_LIMITS = "`headgate limits` and `headgate budgets` show what is left"

_MEASURES = {
    "rpm": "requests per minute",
    "tpm": "tokens per minute",
    "input_tpm": "input tokens per minute",
    "output_tpm": "output tokens per minute",
    "rpd": "requests per day",
    "concurrent": "calls at one time",
}

_GATES = {
    "limited": "it refused calls because of a limit",
    "slow": "it asked for slower growth",
    "overloaded": "it is overloaded",
    "money": "its credit is used up",
    "flex": "its flex tier has no capacity",
}


def limit(scope: str, level: BucketLevel) -> tuple[str, str]:
    """Return the limit in words, and what would help."""
    amount = level.limit.amount
    why = f"{_MEASURES.get(level.measure, level.measure)}, {amount:,.0f}"
    if level.limit.whence == "provider":
        return f"{why}, as the provider says", "ask the provider for more, or use another model"
    return why, f"`headgate limits set {scope} {level.measure}=N` raises it"


def gate(pool: str, state: GateState) -> tuple[str, str]:
    """Return why the gate of a pool is shut, and what would help."""
    if state.until_ms is None:
        return f"it is overloaded; at most {state.ceiling} calls at one time", DUE
    why = _GATES.get(state.why, state.why)
    if state.asked_ms is not None:
        asked = rfc3339(min(state.asked_ms, LATEST_MS))
        return (
            f"{why}, until {asked}; one call tests it before",
            f"`headgate resume pool {pool}` tests it at once",
        )
    if state.waits_for_word or state.why == "money":
        return why, f"add credit at the provider, then `headgate resume pool {pool}`"
    return why, DUE


def budget(wait: BudgetWait) -> tuple[str, str]:
    """Return why a budget keeps a job, and what would help."""
    is_day = len(wait.period) == len("20261121")
    amount = usd_text(wait.budget.of(wait.period) or 0)
    what = f"{amount} USD {'a day' if is_day else 'a month'}"
    measure = "usd_per_day" if is_day else "usd_per_month"
    more = f"`headgate limits set {shown(wait.scope)} {measure}=X` raises it"
    match wait.why:
        case "soft":
            share = f"{wait.budget.soft:.0%}"
            return (
                f"{what}, of which {share} are spent: bulk jobs wait",
                f"{more}; jobs of another priority go on",
            )
        case "held":
            return f"{what}, the rest of which running jobs hold", more
        case "unread":
            return f"{what}; a worker adds up what is spent", DUE


def no_worker(queue: str, workers: Sequence[LivingWorker]) -> str:
    """Return why nobody serves the queue."""
    if not workers:
        return "no worker runs"
    _, _, model_class = queue.rpartition(".")
    of_class = (one for worker in workers for one in worker.queues or ())
    if queue.startswith("headgate.") and not any(q.endswith(f".{model_class}") for q in of_class):
        return f"no worker that runs serves the class {model_class}"
    return "the workers that run serve other queues"


def start_worker(queue: str) -> str:
    """Return how to start a worker for this queue."""
    return f"`headgate worker`, or `headgate worker --queues {queue}`"


def set_key(provider: str) -> str:
    """Return how to set a key of this provider."""
    return f"set a key of {provider} where the workers run, and start them again"


def model_down(name: str) -> str:
    """Return what helps while a model is down."""
    model = name.partition("/")[2]
    return f"name a fallback; `headgate resume model {model}` asks it at once"


def ahead(n: int) -> str:
    """Return how many jobs are ahead, in words."""
    return "1 job is ahead of it" if n == 1 else f"{n:,} jobs are ahead of it"


def busy(held: int) -> str:
    """Return that the workers are busy."""
    return f"the workers run {held:,} jobs" if held else ""
