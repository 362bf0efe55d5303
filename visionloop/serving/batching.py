"""Decodes requests in threads, and puts those that wait together through the network at once.

A thread that has decoded a request and finds the network free runs it, with whatever else waits;
what is decoded meanwhile waits for the next run. So a batch is as large as the load makes it, and a
request that is alone waits for nobody, and has all processors to itself. Before a run it waits, for
a quarter of what a run takes lately and `max_delay` at most, for requests that are being decoded at
that moment.

A run has one model: requests that began before a swap and after it never share one. Where a run
fails, each of its requests is run alone, so that only the one at fault fails.

What is decoded, and waits or runs, is bounded in bytes: a thread waits before it decodes more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionloop.inference import OnnxModel
from visionloop.media.budget import Budget, Share
from visionloop.serving.payloads import MAX_PIXELS, Ask, BadRequest, prepare
from visionloop.serving.replies import Answer

MAX_BATCH = 16
MAX_DELAY_MS = 2.0
# Of pictures that wait for the network: the largest request, and a hundred of 224 pixels beside it.
MAX_BYTES = 320 * 1024 * 1024
# Of the seconds of a run; and below so many it is not worth a thread's going to sleep.
_PATIENCE, _LEAST_DELAY = 0.25, 0.0002

Read = Callable[[OnnxModel], Ask]

_NOTHING = np.empty(0, np.float32)


@dataclass(eq=False)
class _Job:
    """A request on its way.

    Attributes:
        model: Who answers it.
        read: Reads it, in a thread.
        answer: Becomes what was asked and what the model said.
        share: What its pictures take of the batcher's memory.
        ask: What was asked, without its pictures.
        batch: Its pictures, float32 [n, 3, S, S].
        decoded: When they were ready, on the clock `perf_counter`.
    """

    model: OnnxModel
    read: Read
    answer: asyncio.Future[tuple[Ask, Answer]]
    share: Share
    ask: Ask = field(default_factory=lambda: Ask("", []))
    batch: NDArray[np.float32] = field(default_factory=lambda: _NOTHING)
    decoded: float = 0.0


_Outcome = tuple[_Job, Answer | None, Exception | None]


class Batcher:
    """Answers requests with threads of its own.

    Args:
        workers: Requests that are decoded at a time, beside the runs.
        runs: Runs of the network at a time.
        max_batch: Pictures of one run; a request that has more gets runs of its own.
        max_delay_ms: Longest wait for other requests before a run; 0 never waits.
        max_pixels: Of one image.
        max_bytes: Of the pictures that are decoded or wait, as the network takes them; a request
            that has more is decoded once nothing else waits.
        observe: Told the seconds of each stage of a request: ``decode``, ``queue``, ``inference``.
        ran: Told the model and the pictures of each run.
    """

    def __init__(
        self,
        *,
        workers: int,
        runs: int = 1,
        max_batch: int = MAX_BATCH,
        max_delay_ms: float = MAX_DELAY_MS,
        max_pixels: int = MAX_PIXELS,
        max_bytes: int = MAX_BYTES,
        observe: Callable[[str, float], None] = lambda stage, seconds: None,
        ran: Callable[[OnnxModel, int], None] = lambda model, pictures: None,
    ) -> None:
        self._max_batch = max_batch
        self._max_delay = max_delay_ms / 1000
        self._max_pixels = max_pixels
        self._observe = observe
        self._ran = ran
        self._pool = ThreadPoolExecutor(workers + runs, thread_name_prefix="predict")
        self._room = Budget(max_bytes)
        self._changed = threading.Condition()
        self._ready: deque[_Job] = deque()
        self._busy = self._decoding = 0
        self._free = self._runs = runs
        self._run_seconds = 0.0
        self._closed = False

    async def answer(self, model: OnnxModel, read: Read) -> tuple[Ask, Answer]:
        """Answer one request.

        Args:
            model: The model to ask.
            read: Reads the request, given the model; run in a thread.

        Returns:
            What was asked, and what the model said.

        Raises:
            BadRequest: The request or one of its pictures cannot be read.
            VisionloopError: The network failed.
            Exception: Whatever else `read` raises.
        """
        answer: asyncio.Future[tuple[Ask, Answer]] = asyncio.get_running_loop().create_future()
        self._pool.submit(self._work, _Job(model, read, answer, self._room.share()))
        try:
            return await answer
        finally:
            del answer  # which holds the error, that holds this frame, and the request's memory

    def close(self) -> bool:
        """End the threads; requests that wait are dropped and get no answer.

        Returns:
            Whether all is at rest. Else a thread still decodes a picture, or runs the network,
            which nothing can stop.
        """
        with self._changed:
            self._closed = True
            dropped, self._ready = self._ready, deque()
        for job in dropped:
            job.share.give()
        self._pool.shutdown(wait=False, cancel_futures=True)
        return not self._busy

    def _work(self, job: _Job) -> None:
        if job.answer.cancelled():  # the client gave up
            return
        with self._changed:
            self._busy += 1
            self._decoding += 1
        try:
            self._decode(job)
        except Exception as error:
            self._decoded(None)
            _deliver([(job, None, _bare(error))])
        else:
            if self._decoded(job):
                self._run_what_waits()
        finally:
            with self._changed:
                self._busy -= 1

    def _decode(self, job: _Job) -> None:
        began = perf_counter()
        ask = job.read(job.model)
        job.batch = prepare(
            ask.pictures,
            job.model.card.image_size,
            max_pixels=self._max_pixels,
            reserve=job.share.take,
        )
        job.ask = replace(ask, pictures=())  # nobody needs them any more
        job.decoded = perf_counter()
        self._observe("decode", job.decoded - began)

    def _decoded(self, job: _Job | None) -> bool:
        """Put a request where it waits for a run; None is one that cannot be read.

        Returns:
            Whether the network is free, and this thread shall run it.
        """
        with self._changed:
            self._decoding -= 1
            self._changed.notify_all()  # a run that waits for company
            if job is None:
                return False
            if self._closed:
                job.share.give()
                return False
            self._ready.append(job)
            if not self._free:
                return False
            self._free -= 1
            return True

    def _run_what_waits(self) -> None:
        try:
            while True:
                with self._changed:
                    jobs = self._take()
                    if not jobs:
                        self._free += 1
                        return
                    others = self._decoding or self._ready or self._free < self._runs - 1
                self._run(jobs, alone=len(jobs) == 1 and not others)
        except Exception:  # memory ran out where nothing else can fail
            logging.getLogger(__name__).exception("a run of the network was lost")
            with self._changed:
                self._free += 1

    def _take(self) -> list[_Job]:
        """Take the requests of the next run, after a wait for more where that is worth it."""
        delay = min(self._max_delay, _PATIENCE * self._run_seconds)
        until = perf_counter() + delay
        while self._decoding and delay >= _LEAST_DELAY and self._waiting() < self._max_batch:
            left = until - perf_counter()
            if left <= 0 or not self._changed.wait(left):
                break
        taken: list[_Job] = []
        pictures = 0
        kept: deque[_Job] = deque()
        for job in self._ready:
            fits = not taken or (
                job.model is taken[0].model and pictures + len(job.batch) <= self._max_batch
            )
            if fits:
                taken.append(job)
                pictures += len(job.batch)
            else:
                kept.append(job)
        self._ready = kept
        return taken

    def _waiting(self) -> int:
        return sum(len(job.batch) for job in self._ready)

    def _run(self, jobs: list[_Job], *, alone: bool = False) -> None:
        """Answer requests of one model, whatever goes wrong."""
        try:
            outcomes = self._answered(jobs, alone=alone)
        except Exception as error:
            if len(jobs) == 1:
                _deliver([(jobs[0], None, error)])
            else:
                for job in jobs:
                    self._run([job])
        else:
            _deliver(outcomes)

    def _answered(self, jobs: list[_Job], *, alone: bool) -> list[_Outcome]:
        began = perf_counter()
        model = jobs[0].model
        batch = jobs[0].batch if len(jobs) == 1 else np.concatenate([job.batch for job in jobs])
        probabilities, embedding = model.predict(batch, batch_size=self._max_batch, alone=alone)
        seconds = perf_counter() - began
        self._run_seconds += 0.2 * (seconds - self._run_seconds)
        self._ran(model, len(batch))
        outcomes: list[_Outcome] = []
        start = 0
        for job in jobs:
            rows = slice(start, start + len(job.batch))
            start += len(job.batch)
            answer = Answer(model.card, probabilities[rows], embedding[rows])
            outcomes.append((job, answer, None))
            self._observe("queue", began - job.decoded)
            self._observe("inference", seconds)
        return outcomes


def _bare(error: Exception) -> Exception:
    """Take from an expected error where it was raised: what was read there is large."""
    if isinstance(error, (BadRequest, MemoryError)):
        error.__context__ = None
        return error.with_traceback(None)
    return error


def _deliver(outcomes: list[_Outcome]) -> None:
    for job, _, _ in outcomes:
        job.batch = _NOTHING
        job.share.give()
    loop: Any = outcomes[0][0].answer.get_loop()
    with contextlib.suppress(RuntimeError):  # the server ended meanwhile
        loop.call_soon_threadsafe(_settle, outcomes)


def _settle(outcomes: list[_Outcome]) -> None:
    for job, answer, error in outcomes:
        if job.answer.done():  # the client gave up
            continue
        if answer is not None:
            job.answer.set_result((job.ask, answer))
        elif error is not None:
            job.answer.set_exception(error)
