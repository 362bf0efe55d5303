"""Requests that wait together go through the network at once, and each gets its own answer."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.serving.conftest import SIZE, picture, write_bundle
from visionloop.errors import VisionloopError
from visionloop.inference import OnnxModel, to_input
from visionloop.media.decode import decode_rgb
from visionloop.serving.batching import Batcher
from visionloop.serving.payloads import Ask, BadRequest, read_v1


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[OnnxModel]:
    folder = tmp_path_factory.mktemp("models")
    return [
        OnnxModel.load(write_bundle(folder / f"m{n}", f"model-{n}", seed=n), threads=1)
        for n in range(2)
    ]


class Held:
    """A model whose runs begin when they are let, and which keeps what it was given."""

    def __init__(self, model: OnnxModel) -> None:
        self.card = model.card
        self.let = threading.Event()
        self.entered = threading.Event()
        self.runs: list[int] = []
        self.alone: list[bool] = []
        self._model = model

    def predict(self, images: np.ndarray, *, batch_size: int = 64, alone: bool = False) -> Any:
        self.runs.append(len(images))
        self.alone.append(alone)
        self.entered.set()
        assert self.let.wait(10)
        if (images == 1).all(axis=(1, 2, 3)).any():
            raise VisionloopError("a picture that the network cannot take")
        return self._model.predict(images, batch_size=batch_size)


def asks(image: bytes) -> Callable[[OnnxModel], Ask]:
    return lambda model: read_v1(image)


def expected(model: OnnxModel, image: bytes) -> np.ndarray:
    return model.predict(to_input(decode_rgb(image), SIZE)[None])[0]


def ask_while_it_runs(held: Held, batcher: Batcher, reads: list[Any]) -> list[Any]:
    """Ask once, ask all others while that runs, and return their answers or errors."""

    async def main() -> list[Any]:
        first = asyncio.ensure_future(batcher.answer(held, asks(picture(99))))  # type: ignore[arg-type]
        await asyncio.to_thread(held.entered.wait, 10)
        rest = [asyncio.ensure_future(batcher.answer(*read)) for read in reads]
        while len(batcher._ready) + sum(one.done() for one in rest) < len(reads):
            await asyncio.sleep(0.005)
        held.let.set()
        await first
        return await asyncio.gather(*rest, return_exceptions=True)

    return asyncio.run(main())


def test_what_waits_while_the_network_is_busy_goes_through_it_at_once(
    models: list[OnnxModel],
) -> None:
    held = Held(models[0])
    images = [picture(n) for n in range(6)]
    sizes: list[int] = []
    batcher = Batcher(workers=3, max_batch=4, ran=lambda model, n: sizes.append(n))
    answers = ask_while_it_runs(held, batcher, [(held, asks(image)) for image in images])
    batcher.close()
    assert held.runs == sizes == [1, 4, 2]
    assert held.alone == [True, False, False]
    for image, (_, answer) in zip(images, answers, strict=True):
        assert np.allclose(answer.probabilities, expected(models[0], image), atol=1e-6)


def test_a_picture_that_cannot_be_read_fails_alone(models: list[OnnxModel]) -> None:
    held = Held(models[0])
    images = [picture(0), b"\xff\xd8\xff no picture", picture(2)]
    batcher = Batcher(workers=3)
    answers = ask_while_it_runs(held, batcher, [(held, asks(image)) for image in images])
    batcher.close()
    assert isinstance(answers[1], BadRequest)
    for n in (0, 2):
        got = answers[n][1].probabilities
        assert np.allclose(got, expected(models[0], images[n]), atol=1e-6)


def test_a_request_that_the_network_fails_on_fails_alone(models: list[OnnxModel]) -> None:
    held = Held(models[0])
    white = np.ones((1, 3, SIZE, SIZE), np.float32)
    reads: list[Any] = [(held, asks(picture(n))) for n in range(3)]
    reads.insert(1, (held, lambda model: Ask("v2", white)))
    batcher = Batcher(workers=3)
    answers = ask_while_it_runs(held, batcher, reads)
    batcher.close()
    assert held.runs == [1, 4, 1, 1, 1, 1]
    assert isinstance(answers[1], VisionloopError)
    for n, place in enumerate((0, 2, 3)):
        got = answers[place][1].probabilities
        assert np.allclose(got, expected(models[0], picture(n)), atol=1e-6)


@pytest.mark.parametrize("what", ["memory", "metrics"])
def test_whatever_fails_in_a_run_its_requests_are_told_and_later_ones_answered(
    models: list[OnnxModel], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    held = Held(models[0])
    concatenate = np.concatenate

    def no_room(arrays: list[np.ndarray], *rest: Any, **more: Any) -> np.ndarray:
        if arrays[0].ndim == 4:
            raise MemoryError
        return concatenate(arrays, *rest, **more)

    def counted(model: OnnxModel, pictures: int) -> None:
        if pictures > 1 and what == "metrics":
            raise RuntimeError

    batcher = Batcher(workers=3, ran=counted)
    with monkeypatch.context() as patched:
        if what == "memory":
            patched.setattr("numpy.concatenate", no_room)
        answers = ask_while_it_runs(held, batcher, [(held, asks(picture(n))) for n in range(3)])
    # Together there was no room for them, and alone there was.
    assert held.runs == ([1, 1, 1, 1] if what == "memory" else [1, 3, 1, 1, 1])
    for n, (_, answer) in enumerate(answers):
        assert np.allclose(answer.probabilities, expected(models[0], picture(n)), atol=1e-6)

    async def later() -> None:
        await asyncio.wait_for(batcher.answer(models[0], asks(picture(7))), 10)

    asyncio.run(later())
    # The thread that has answered may still be on its way out of its work.
    until = time.monotonic() + 10
    while not batcher.close() and time.monotonic() < until:
        time.sleep(0.01)
    assert batcher.close()


@pytest.mark.parametrize("each", [1, 3])
def test_what_waits_for_the_network_is_bounded_in_bytes(models: list[OnnxModel], each: int) -> None:
    held = Held(models[0])
    one = 3 * SIZE * SIZE * 4
    batcher = Batcher(workers=8, max_bytes=2 * one)
    picked = [np.full((each, 3, SIZE, SIZE), n / 20, np.float32) for n in range(9)]

    async def main() -> list[Any]:
        asked = [
            asyncio.ensure_future(batcher.answer(held, lambda model, n=n: Ask("v2", picked[n])))  # type: ignore[arg-type,misc]
            for n in range(9)
        ]
        await asyncio.to_thread(held.entered.wait, 10)
        await asyncio.sleep(0.2)
        # One runs, and one waits beside it; or none, where one alone is larger than the bound.
        assert sum(held.runs) + batcher._waiting() == max(2, each)
        held.let.set()
        return await asyncio.wait_for(asyncio.gather(*asked), 20)

    answers = asyncio.run(main())
    assert batcher.close()
    for pictures, (_, answer) in zip(picked, answers, strict=True):
        assert np.allclose(answer.probabilities, models[0].predict(pictures)[0], atol=1e-6)


def test_two_models_never_share_a_run(models: list[OnnxModel]) -> None:
    held = Held(models[0])
    image = picture(5)
    runs: list[tuple[str, int]] = []
    batcher = Batcher(workers=3, ran=lambda model, n: runs.append((model.card.model_id, n)))
    reads: list[Any] = [(one, asks(image)) for one in (held, models[1], held, models[1])]
    answers = ask_while_it_runs(held, batcher, reads)
    batcher.close()
    assert sorted(runs[1:]) == [("model-0", 2), ("model-1", 2)]
    for (_, answer), model in zip(answers, [*models, *models], strict=True):
        assert answer.card.model_id == model.card.model_id
        assert np.allclose(answer.probabilities, expected(model, image), atol=1e-6)


def test_a_run_waits_a_moment_for_what_is_being_decoded_and_never_alone(
    models: list[OnnxModel],
) -> None:
    sizes: list[int] = []
    batcher = Batcher(
        workers=2, max_delay_ms=5000, ran=lambda model, pictures: sizes.append(pictures)
    )
    batcher._run_seconds = 20.0  # as if runs took so long: it would wait for a quarter of that
    decoding, go_on = threading.Event(), threading.Event()

    def slowly(model: OnnxModel) -> Ask:
        decoding.set()
        assert go_on.wait(10)
        return read_v1(picture(1))

    async def main() -> float:
        began = time.monotonic()
        await batcher.answer(models[0], asks(picture(0)))
        alone = time.monotonic() - began
        slow = asyncio.ensure_future(batcher.answer(models[0], slowly))
        await asyncio.to_thread(decoding.wait, 10)
        quick = asyncio.ensure_future(batcher.answer(models[0], asks(picture(2))))
        await asyncio.sleep(0.05)
        assert not quick.done()
        go_on.set()
        await asyncio.gather(slow, quick)
        return alone

    assert asyncio.run(main()) < 2
    batcher.close()
    assert sizes == [1, 2]


def test_a_run_that_waits_goes_on_when_what_it_waits_for_is_no_picture(
    models: list[OnnxModel],
) -> None:
    batcher = Batcher(workers=2, max_delay_ms=60_000)
    batcher._run_seconds = 240.0
    decoding, go_on = threading.Event(), threading.Event()

    def badly(model: OnnxModel) -> Ask:
        decoding.set()
        assert go_on.wait(10)
        raise BadRequest("no picture")

    async def main() -> None:
        bad = asyncio.ensure_future(batcher.answer(models[0], badly))
        await asyncio.to_thread(decoding.wait, 10)
        good = asyncio.ensure_future(batcher.answer(models[0], asks(picture(0))))
        await asyncio.sleep(0.02)
        go_on.set()
        with pytest.raises(BadRequest):
            await bad
        await asyncio.wait_for(good, 10)

    asyncio.run(main())
    batcher.close()


def test_a_tensor_goes_from_the_body_to_the_network_as_a_view() -> None:
    import json

    from visionloop.serving.payloads import prepare, read_v2

    tensor = np.random.default_rng(0).random((1, 3, SIZE, SIZE), np.float32)
    raw = tensor.tobytes()
    head = json.dumps(
        {"inputs": [{"name": "image", "shape": list(tensor.shape), "datatype": "FP32",
                     "parameters": {"binary_data_size": len(raw)}}]}
    ).encode()  # fmt: skip
    body = head + raw
    batch = prepare(read_v2(body, str(len(head))).pictures, SIZE)
    assert np.array_equal(batch, tensor)
    assert np.shares_memory(batch, np.frombuffer(body, np.uint8))


def test_a_model_with_a_fixed_batch_is_refused_unless_it_serves_one_at_a_time(
    tmp_path: Path,
) -> None:
    import hashlib
    import json

    import onnx

    from visionloop.errors import InputError
    from visionloop.serving.following import ModelFollower

    folder = write_bundle(tmp_path / "m", "model-1")
    model = onnx.load(folder / "model.onnx")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    data = model.SerializeToString()
    (folder / "model.onnx").write_bytes(data)
    card = json.loads((folder / "card.json").read_text())
    card["files"]["model.onnx"] = hashlib.sha256(data).hexdigest()
    (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises(InputError, match="one picture and not 4 at once"):
        ModelFollower(str(folder), batch=4).take_first()
    ModelFollower(str(folder), batch=1).take_first()
