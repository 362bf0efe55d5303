"""Which response answers which request.

Request and response of one inference share a ``ce-id``, and nothing else promises to be unique:
clients reuse an id for retries and for different images, a third of the responses come before their
request, and either half may be lost. What the halves of one inference also share, where both say
it: service, namespace, component, route and pod; content type and captured headers (a response
event carries its request's); the V2 id and the model's name; the number of rows; and a reply does
not end before its request arrived, unless their clocks disagree.

The outcome is a function of the *set* of events with one id: the order, the files and the harvests
that they came in make no difference. Where several pairings fit that would give an image different
probabilities, none is guessed: the probabilities are kept without the image (``ambiguous_ce_id``).
Two different answers to one and the same request contradict each other, and are rejected
(``conflicting_responses``).

States of an event: ``harvested``, ``pending``, ``orphan``, ``rejected``, ``ignored``. (A repeated
delivery of an event is ``duplicate``, before anything is paired.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from visionloop.serving.requests import Request
from visionloop.serving.responses import Response

AMBIGUOUS = "ambiguous_ce_id"
CONFLICT = "conflicting_responses"
NO_RESPONSE = "request_without_response"
NO_REQUEST = "response_without_request"

# Before KServe 0.18 `ce-time` is when the worker sent the event, and workers overtake each other.
SLACK = timedelta(seconds=5)

# Clocks that disagree put a reply before its request. Where one collector got both so close
# together, and no other event has their id, its clock is believed.
TOGETHER = timedelta(minutes=10)

# From here on a shortcut keeps an id that a client gives to everything from taking minutes.
_MANY = 256
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
_PROTOCOLS = {"v1-image": "v1", "v2-binary": "v2"}


@dataclass(frozen=True)
class Half:
    """One event as far as pairing needs it: names, times and hashes, no pixels.

    Attributes:
        event_id: ``ce-id``.
        digest: What tells this event from every other.
        occurred_at: When the request arrived, or the reply ended.
        received_at: When the sink recorded it.
        names: Namespace, service, component, route and source; empty where the event lacks one.
        content_type: The request's.
        metadata: The request's captured headers.
        model_id: The model that annotations or metadata name.
        body_sha256: SHA-256 of the logged body.
        content: What the body says.
    """

    event_id: str
    digest: str
    occurred_at: datetime | None
    received_at: datetime | None
    names: tuple[str, str, str, str, str]
    content_type: str
    metadata: str
    model_id: str
    body_sha256: str
    content: Request | Response

    @property
    def is_request(self) -> bool:
        """Whether this is the request's half."""
        return isinstance(self.content, Request)

    @property
    def order(self) -> tuple[datetime, str]:
        """Key that puts halves in the order of their times, the same however they came."""
        return (self.occurred_at or self.received_at or _BEGINNING, self.digest)


@dataclass(frozen=True)
class Inference:
    """One answered request, or an answer whose request is not known.

    Attributes:
        request: Its request; None where it is not known.
        response: Its response, with probabilities or boxes.
        note: Why no image is named; empty when one is.
    """

    request: Half | None
    response: Half
    note: str = ""


@dataclass(frozen=True)
class Outcome:
    """What became of the events with one id.

    Attributes:
        states: ``{digest: (state, reason)}`` for every event.
        inferences: What is known, in the order of time.
    """

    states: dict[str, tuple[str, str]]
    inferences: list[Inference]


def resolve(halves: Iterable[Half], *, orphaned_before: datetime) -> Outcome:
    """Pair the events with one id.

    Args:
        halves: All of them, each delivery once, in any order.
        orphaned_before: A half without its counterpart that was received earlier is an orphan,
            a later one is pending.
    """
    group = _Group(sorted(halves, key=lambda half: half.order))
    if group.is_one_pair:
        group.match(slack=SLACK, strict=False, rows=False)
    else:
        for strict in (True, False):
            group.match(slack=timedelta(0), strict=strict)
            group.match(slack=SLACK, strict=strict)
    return group.outcome(orphaned_before)


class _Group:
    """The events with one id that are not paired yet, in the order of time."""

    def __init__(self, halves: Sequence[Half]) -> None:
        self._requests = {half.digest: half for half in halves if half.is_request}
        self._responses = {half.digest: half for half in halves if not half.is_request}
        self._alone = self.is_one_pair
        self._pairs: list[tuple[Half, Half]] = []
        self._strict = self._rows = True

    @property
    def is_one_pair(self) -> bool:
        return len(self._requests) == len(self._responses) == 1

    def match(self, *, slack: timedelta, strict: bool, rows: bool = True) -> None:
        """Pair what can be told apart, until nothing changes any more.

        Args:
            slack: How much older than its request a response may be; any age where they share a
                V2 id.
            strict: Whether content type and captured headers must agree. KServe's logger puts the
                request's on both events; another logger may not.
            rows: Whether the number of rows must agree.
        """
        self._strict, self._rows = strict, rows
        changed = True
        while changed and self._requests and self._responses:
            changed = False
            for response in list(self._responses.values()):
                requests = self._one_kind(response, slack)
                if not requests or response.digest not in self._responses:
                    continue
                rivals = self._rivals(response, requests, slack)
                if len(rivals) > len(requests) and len({_answer(r) for r in rivals}) > 1:
                    continue
                self._pairs.append((requests[0], response))
                del self._requests[requests[0].digest], self._responses[response.digest]
                changed = True

    def _one_kind(self, response: Half, slack: timedelta) -> list[Half]:
        """Return the requests that a response can belong to, if they all ask the same."""
        found: list[Half] = []
        for request in self._requests.values():
            if request.order[0] > response.order[0] + slack and not (
                _same_id(request, response) or (self._alone and _together(request, response))
            ):
                if response.content.v2_id:
                    continue
                break  # in the order of time: all others are younger still
            if not _fits(request, response, strict=self._strict):
                continue
            if self._rows and _rows_differ(request, response):
                continue
            if found and _question(request) != _question(found[0]):
                return []
            found.append(request)
        return found

    def _rivals(self, response: Half, requests: Sequence[Half], slack: timedelta) -> list[Half]:
        """Return the responses that can belong to these requests and to no other."""
        among = {request.digest for request in requests}
        rivals = []
        for other in self._responses.values():
            theirs = self._one_kind(other, slack)
            if theirs and among.issuperset(request.digest for request in theirs):
                rivals.append(other)
            elif len(self._responses) > _MANY and other.order > response.order:
                break  # an id that thousands share: those who follow have younger requests
        return rivals

    def outcome(self, orphaned_before: datetime) -> Outcome:
        """Say what became of each event, paired or not."""
        states: dict[str, tuple[str, str]] = {}
        inferences: list[Inference] = []
        for request, response in self._pairs:
            state, reason, inference = _judge(request, response)
            states[request.digest] = states[response.digest] = (state, reason)
            if inference:
                inferences.append(inference)
        for response in self._responses.values():
            state, reason, inference = _judge(None, response)
            fitting = [r for r in self._requests.values() if _fits(r, response, strict=False)]
            if state != "harvested" or not fitting:
                if state == "harvested":
                    state, reason = _waiting(response, NO_REQUEST, orphaned_before)
            elif self._one_kind(response, SLACK):
                # It would be paired if no other response claimed the same request.
                state, reason, inference = "rejected", CONFLICT, None
            else:
                reason, inference = AMBIGUOUS, Inference(None, response, AMBIGUOUS)
            states[response.digest] = (state, reason)
            if inference:
                inferences.append(inference)
            # As many requests as responses were answered; which ones is what is not known.
            free = next((request for request in fitting if request.digest not in states), None)
            if free is not None and reason in (AMBIGUOUS, CONFLICT):
                states[free.digest] = (state, reason)
        for request in self._requests.values():
            states.setdefault(request.digest, _waiting(request, NO_RESPONSE, orphaned_before))
        inferences.sort(key=lambda inference: inference.response.order)
        return Outcome(states, inferences)


def _judge(request: Half | None, response: Half) -> tuple[str, str, Inference | None]:
    """Return state, reason and, if it counts, the inference of a pair or of a lone response."""
    answer = response.content
    asked = request.content if request else None
    assert isinstance(answer, Response)
    if answer.rows is None and (
        (not answer.inference and (asked is None or asked.rows is None))
        or (isinstance(asked, Request) and asked.problem == "request_empty")
    ):
        return "ignored", "not_an_inference", None
    if answer.problem:
        return "rejected", answer.problem, None
    if request is None:
        return "harvested", "", Inference(None, response, NO_REQUEST)
    assert isinstance(asked, Request)
    if _rows_differ(request, response):
        return "rejected", "rows_differ", None
    return "harvested", "", Inference(request, response, asked.problem)


def _waiting(half: Half, reason: str, orphaned_before: datetime) -> tuple[str, str]:
    old = (half.received_at or _BEGINNING) < orphaned_before
    return ("orphan" if old else "pending", reason)


def _fits(request: Half, response: Half, *, strict: bool) -> bool:
    """Return whether nothing that both halves say speaks against their being one inference."""
    if any(a and b and a != b for a, b in zip(request.names, response.names, strict=True)):
        return False
    if strict:
        said = (
            (request.content_type, response.content_type),
            (request.metadata, response.metadata),
        )
        if any(a and b and a != b for a, b in said):
            return False
    asked, answered = request.content, response.content
    assert isinstance(asked, Request)
    assert isinstance(answered, Response)
    ours, theirs = (_PROTOCOLS.get(p, p) for p in (asked.protocol, answered.protocol))
    if ours and theirs and ours != theirs:
        return False
    if asked.v2_id and answered.v2_id and asked.v2_id != answered.v2_id:
        return False
    return not (
        asked.model_name and answered.model_name and asked.model_name != answered.model_name
    )


def _same_id(request: Half, response: Half) -> bool:
    return bool(request.content.v2_id) and request.content.v2_id == response.content.v2_id


def _together(request: Half, response: Half) -> bool:
    if request.received_at is None or response.received_at is None:
        return False
    return abs(request.received_at - response.received_at) <= TOGETHER


def _rows_differ(request: Half, response: Half) -> bool:
    asked, answered = request.content.rows, response.content.rows
    return asked is not None and answered is not None and asked != answered


def _question(request: Half) -> tuple[object, ...]:
    """Return what makes two requests the same question: pairing them crosswise changes nothing."""
    asked = request.content
    assert isinstance(asked, Request)
    return (request.body_sha256, asked.samples, asked.tensors, request.names, request.metadata)


def _answer(response: Half) -> tuple[object, ...]:
    answered = response.content
    assert isinstance(answered, Response)
    values = None if answered.probabilities is None else answered.probabilities.tobytes()
    return (values, answered.labels, repr(answered.boxes), answered.problem, answered.model_id)
