"""What the vendor has on record: Responses and conversations, each of one key."""

from headgate.workers.simulator.request import Invalid, Json
from headgate.workers.simulator.responses.replies import SimulatedResponse
from headgate.workers.simulator.responses.requests import items_of

MOST_KEPT = 10_000


class SimulatedRecord:
    """Responses by key and id, and conversations by key and id; the oldest are dropped first.

    A conversation begins with the first request that names it.
    """

    def __init__(self) -> None:
        self._responses: dict[tuple[str, str], list[Json]] = {}
        self._conversations: dict[tuple[str, str], list[Json]] = {}

    def with_history(self, key: str, body: Json) -> Json:
        """Return the body with what its key has on record as `history`; raises Invalid."""
        previous, conversation = body.get("previous_response_id"), _id_of(body)
        if previous and conversation:
            raise Invalid(
                "Mutually exclusive parameters: ['previous_response_id', 'conversation'].",
                code="mutually_exclusive_parameters",
            )
        if conversation:
            return {**body, "history": self._conversations.get((key, conversation), [])}
        if not previous:
            return body
        history = self._responses.get((key, str(previous)))
        if history is None:
            raise Invalid(
                f"Previous response with id '{previous}' not found.",
                param="previous_response_id",
                code="previous_response_not_found",
            )
        return {**body, "history": history}

    def keep(self, key: str, response: SimulatedResponse) -> None:
        """Keep the Response with all that came before it, and add it to its conversation."""
        body = response.ask.body or {}
        if not response.stores and not _id_of(body):
            return
        before = self.with_history(key, body).get("history", [])
        items = [*before, *items_of(body), *response.output()]
        kept, name = self._responses, response.id
        if conversation := _id_of(body):
            self._conversations[key, conversation] = items
        if response.stores:
            kept[key, name] = items
        for table in (self._responses, self._conversations):
            while len(table) > MOST_KEPT:
                del table[next(iter(table))]


def _id_of(body: Json) -> str:
    conversation = body.get("conversation")
    found = conversation.get("id") if isinstance(conversation, dict) else conversation
    return str(found) if found else ""
