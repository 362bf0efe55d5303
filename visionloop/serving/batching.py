"""Decodes requests in threads, and puts those that wait together through the network at once.

A thread that has decoded a request and finds the network free runs it, with whatever else waits;
what is decoded meanwhile waits for the next run. So a batch is as large as the load makes it, and a
request that is alone waits for nobody, and has all processors to itself. Before a run it waits, for
a quarter of what a run takes lately and `max_delay` at most, for requests that are being decoded at
that moment.

A run has one model: requests that began before a swap and after it never share one. Where a run
fails, each of its requests is run alone, so that only the one at fault fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionloop.inference import OnnxModel
from visionloop.serving.payloads import MAX_PIXELS, Ask, prepare
from visionloop.serving.replies import Answer

MAX_BATCH = 16
MAX_DELAY_MS = 2.0
# Of the seconds of a run; and below so many it is not worth a thread's going to sleep.
_PATIENCE, _LEAST_DELAY = 0.25, 0.0002

Read = Callable[[OnnxModel], Ask]


@dataclass(eq=False)
class _Job:
    """A request on its way.

    Attributes:
        model: Who answers it.
        read: Reads it, in a thread.
        answer: Becomes what was asked and what the model said.
        batch: Its pictures, float32 [n, 3, S, S].
        decoded: When they were ready, on the clock `perf_counter`.
    """

    model: OnnxModel
    read: Read
    answer: asyncio.Future[tuple[Ask, Answer]]
    ask: Ask = field(default_factory=lambda: Ask("", []))
    batch: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
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
        observe: Callable[[str, float], None] = lambda stage, seconds: None,
        ran: Callable[[OnnxModel, int], None] = lambda model, pictures: None,
    ) -> None:
        self._max_batch = max_batch
        self._max_delay = max_delay_ms / 1000
        self._max_pixels = max_pixels
        self._observe = observe
        self._ran = ran
        self._pool = ThreadPoolExecutor(workers + runs, thread_name_prefix="predict")
        self._changed = threading.Condition()
        self._ready: deque[_Job] = deque()
        self._decoding = 0
        self._free = self._runs = runs
        self._run_seconds = 0.0

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
        job = _Job(model, read, asyncio.get_running_loop().create_future())
        self._pool.submit(self._work, job)
        return await job.answer

    def close(self) -> None:
        """End the threads; what is under way is finished first."""
        self._pool.shutdown()

    def _work(self, job: _Job) -> None:
        if job.answer.cancelled():  # the client gave up
            return
        began = perf_counter()
        with self._changed:
            self._decoding += 1
        try:
            job.ask = job.read(job.model)
            size = job.model.card.image_size
            job.batch = prepare(job.ask.pictures, size, max_pixels=self._max_pixels)
        except Exception as error:
            with self._changed:
                self._decoding -= 1
                self._changed.notify_all()
            _deliver([(job, None, error)])
            return
        job.decoded = perf_counter()
        self._observe("decode", job.decoded - began)
        with self._changed:
            self._decoding -= 1
            self._ready.append(job)
            mine = self._free > 0
            self._free -= mine
            self._changed.notify_all()  # a run that waits for company
        if mine:
            self._run_what_waits()

    def _run_what_waits(self) -> None:
        while True:
            with self._changed:
                jobs = self._take()
                if not jobs:
                    self._free += 1
                    return
                others = self._decoding or self._ready or self._free < self._runs - 1
                alone = len(jobs) == 1 and not others
            self._run(jobs, alone=alone)

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
        began = perf_counter()
        model = jobs[0].model
        batch = jobs[0].batch if len(jobs) == 1 else np.concatenate([job.batch for job in jobs])
        try:
            probabilities, embedding = model.predict(batch, batch_size=self._max_batch, alone=alone)
        except Exception as error:
            if len(jobs) == 1:
                _deliver([(jobs[0], None, error)])
            else:
                for job in jobs:
                    self._run([job])
            return
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
        _deliver(outcomes)
        for job in jobs:
            self._observe("queue", began - job.decoded)
            self._observe("inference", seconds)


def _deliver(outcomes: list[_Outcome]) -> None:
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
