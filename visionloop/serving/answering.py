"""Who may ask the model, and what becomes of a question: the same over REST and gRPC."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from visionloop.inference import OnnxModel
from visionloop.serving.batching import Batcher, Read
from visionloop.serving.following import ModelFollower
from visionloop.serving.payloads import Ask, BadRequest
from visionloop.serving.replies import Answer

MAX_WAITING = 1000
# Of the bodies that are there, or on their way, at a time.
_MAX_HELD_BYTES = 512 * 1024 * 1024


class Refused(Exception):
    """A request is answered with an error.

    Attributes:
        status: HTTP status.
        reason: Stable and machine-readable, as the metrics count it.
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class Answerer:
    """Answers with the model in service, as long as the server does not end.

    Args:
        name: Name of the model.
        follower: Holds the model in service.
        batcher: Decodes and predicts.
        max_waiting: Requests at a time whose bodies are there; more are refused at once.

    Attributes:
        name: Name of the model.
        ending: The server was told to end: it is not ready any more, and still answers.
        closed: What comes from now on is refused.
        under_way: Requests that are being answered, from their first byte on.
    """

    def __init__(
        self,
        name: str,
        follower: ModelFollower,
        batcher: Batcher,
        *,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self.name = name
        self.ending = False
        self.closed = False
        self.under_way = 0
        self._follower = follower
        self._batcher = batcher
        self._max_waiting = max_waiting
        self._waiting = 0
        self._held = 0

    @property
    def ready(self) -> bool:
        """Whether there is a model, and the server goes on."""
        return self._follower.model is not None and not self.ending

    @property
    def current(self) -> OnnxModel:
        """The model in service.

        Raises:
            Refused: There is none yet.
        """
        model = self._follower.model
        if model is None:
            refusal = self._follower.refusal
            raise Refused(503, "not_ready", refusal.reason if refusal else "No model yet.")
        return model

    @contextmanager
    def begun(self) -> Iterator[None]:
        """Count a request as under way until the end of a with-block, or say why not.

        Raises:
            Refused: The server ends, or too many wait.
        """
        if self.closed:
            raise Refused(503, "ending", "the server ends: ask another replica")
        self._check_room()
        self.under_way += 1
        try:
            yield
        finally:
            self.under_way -= 1

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Take in a request that is `begun` and whose body is there: until then it is idle.

        Raises:
            Refused: Too many wait.
        """
        self._check_room()
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    def _check_room(self) -> None:
        if self._waiting >= self._max_waiting:
            raise Refused(
                503, "overloaded", f"{self._waiting} requests are being answered: ask again later"
            )

    @contextmanager
    def holding(self) -> Iterator[Callable[[int], int]]:
        """Count the bytes of a request, until the end of a with-block.

        Yields:
            A function that is told of more bytes, and returns how many there are. It raises
            `Refused` where all requests together have too many.
        """
        held = 0

        def hold(size: int) -> int:
            nonlocal held
            if self._held + size > _MAX_HELD_BYTES:
                raise Refused(503, "overloaded", "too many bytes are held: ask again later")
            self._held += size
            held += size
            return held

        try:
            yield hold
        finally:
            self._held -= held

    def check(self, model: OnnxModel, name: str, version: str = "") -> None:
        """Check that it is this model which is asked.

        Args:
            model: Who would answer.
            name: Name of a model, from a request.
            version: Its version; empty for any.

        Raises:
            Refused: It is another one.
        """
        if name != self.name:
            raise Refused(404, "not_found", f"Model with name {name} does not exist.")
        if version and version != model.card.model_id:
            raise Refused(
                404, "not_found", f"Model with name {name}/versions/{version} does not exist."
            )

    async def answer(self, read: Read) -> tuple[Ask, Answer]:
        """Answer one request that is `admitted`.

        Args:
            read: Reads the request, given the model that will answer; run in a thread.

        Returns:
            What was asked, and what the model said.

        Raises:
            Refused: It cannot be answered now, or not as it is.
            VisionloopError: The network failed.
        """
        # Taken once: the whole request is answered by one model, whatever is published meanwhile.
        model = self.current
        try:
            return await self._batcher.answer(model, read)
        except BadRequest as error:
            raise Refused(400, error.reason, str(error)) from None
