"""The model in service, as a predictor holds it: follows the pointer and swaps whole models.

A request takes the model once, when it begins, and keeps it to its end: a swap drops nothing and
mixes nothing. A bundle that does not load, or does not answer as its card says, is refused: the old
model stays, and the reason is shown.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import numpy as np

from visionloop.errors import InputError, VisionloopError
from visionloop.inference import OnnxModel
from visionloop.serving.pointer import Pointer, is_pointer, read_pointer

POLL_SECONDS = 0.5
# A refused bundle may be still on its way to where the pointer says.
RETRY_SECONDS = 10.0


@dataclass(frozen=True)
class Refusal:
    """Why a model did not go into service.

    Attributes:
        model_id: The model.
        reason: What was wrong with it.
        at: When, UTC, ISO 8601.
    """

    model_id: str
    reason: str
    at: str


class ModelFollower:
    """Holds the newest model that works.

    Args:
        uri: A pointer (``….json``) or a model bundle.
        threads: ONNX Runtime's threads of one prediction.
        providers: ONNX Runtime's execution providers by name; by default the machine's device.
        threads_alone: Threads of a prediction that nothing else goes on beside; 0 for as many.
        batch: Pictures that the network is given at once: a model answers one and so many before
            it goes into service.
        log: Told about each swap and refusal.

    Attributes:
        model: The model in service; None until there is one.
        refusal: Why what is published did not go into service; None where it did.
        swaps: Models taken so far.
        tried: The first model was taken or refused, or there is none yet.
        error: Why a bundle that was named directly does not load: there will be no other.
    """

    def __init__(
        self,
        uri: str,
        *,
        threads: int = 0,
        providers: Sequence[str] = (),
        threads_alone: int = 0,
        batch: int = 1,
        log: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.model: OnnxModel | None = None
        self.refusal: Refusal | None = None
        self.swaps = 0
        self.tried = False
        self.error: Exception | None = None
        self._uri = uri
        load = partial(OnnxModel.load, threads=threads, providers=providers)
        self._load = partial(_load, partial(load, threads_alone=threads_alone), batch=batch)
        self._log = log
        self._taken: Pointer | None = None
        self._refused: Pointer | None = None
        self._retry_at = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="pointer", daemon=True)

    def start(self) -> None:
        """Take the first model and follow from now on, in a thread: a model may take minutes."""
        self._thread.start()

    def stop(self, *, seconds: float = 5.0) -> bool:
        """Follow no more.

        Args:
            seconds: Longest wait for a model that is being loaded.

        Returns:
            Whether none is being loaded any more.
        """
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=seconds)
        return not self._thread.is_alive()

    def take_first(self) -> None:
        """Take the first model, if there is one.

        Raises:
            InputError: A bundle was named directly, and does not load.
        """
        if is_pointer(self._uri):
            self.poll()
            if self.model is None:
                self._log(f"no model yet: waiting for {self._uri}")
        else:
            model = self._load("", self._uri)
            self._take(Pointer(model.card.model_id, self._uri), model)

    def poll(self) -> None:
        """Look at the pointer once."""
        try:
            pointer = read_pointer(self._uri)
        except Exception as error:  # of whatever storage: it may be back the next time
            self._refuse(Pointer("", self._uri), _told(error))
            return
        # Who published a model, or when, does not matter: only which it is.
        if pointer is None or (self._taken and _same(pointer, self._taken)):
            self.refusal = self._refused = None
            return
        if self._refused and _same(pointer, self._refused) and time.monotonic() < self._retry_at:
            return
        try:
            model = self._load(pointer.model_id, pointer.model_uri)
        except Exception as error:  # whatever a broken bundle provokes: the old model stays
            self._refuse(pointer, _told(error))
        else:
            self._take(pointer, model)

    def _follow(self) -> None:
        try:
            self.take_first()
        except Exception as error:
            self.error = error
        self.tried = True
        while is_pointer(self._uri) and not self._stop.wait(POLL_SECONDS):
            self.poll()

    def _take(self, pointer: Pointer, model: OnnxModel) -> None:
        self.model = model  # one assignment: a request sees the old model or the new
        self.swaps += 1
        self.refusal = None
        self._taken, self._refused = pointer, None
        self._log(f"model {model.card.model_id} is in service ({pointer.model_uri})")

    def _refuse(self, pointer: Pointer, reason: str) -> None:
        if self._refused is None or not _same(pointer, self._refused):
            kept = f"{self.model.card.model_id} stays" if self.model else "there is no other"
            self._log(f"model {pointer.model_id or '?'} is refused, {kept}: {reason}")
        self._refused = pointer
        self._retry_at = time.monotonic() + RETRY_SECONDS
        self.refusal = Refusal(
            pointer.model_id, reason, datetime.now(UTC).isoformat(timespec="seconds")
        )


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, VisionloopError) else f"{type(error).__name__}: {error}"


def _same(one: Pointer, other: Pointer) -> bool:
    return (one.model_id, one.model_uri) == (other.model_id, other.model_uri)


def _load(load: Callable[[str], OnnxModel], model_id: str, uri: str, *, batch: int) -> OnnxModel:
    """Load a bundle, and see it answer: the first answers take longer, and are nobody's."""
    model = load(uri)
    if model_id and model.card.model_id != model_id:
        raise InputError(
            f"the bundle holds model {model.card.model_id}, the pointer names {model_id}", where=uri
        )
    size = model.card.image_size
    for pictures in sorted({1, batch}):
        try:
            probabilities, _ = model.predict(
                np.full((pictures, 3, size, size), 0.5, np.float32), alone=pictures == 1
            )
        except VisionloopError:
            raise
        except Exception as error:
            one = pictures == 1
            raise InputError(
                f"the model does not answer as its card says: {error}"
                if one
                else f"the model answers one picture and not {pictures} at once: {error}",
                where=uri,
                remedy="Export it again"
                if one
                else "Export it with a free batch axis, or serve with --max-batch 1",
            ) from error
        if probabilities.shape[1] != len(model.card.classes) or (
            abs(probabilities.sum(axis=1) - 1).max() > 1e-3
        ):
            raise InputError(
                "the model does not answer one probability a class of its card", where=uri
            )
    return model
