"""The stage `infer` on a processor: resnet18 at 224 pixels, with decoding and without.

    python -m benchmarks.infer [--quick] [--json]

Peers run in the same process on the same photographs, in turns, so that a busy machine slows all
of them: PyTorch eager in channels-last float32 (what the goals are about: 2.5 times on a processor
with bfloat16, 1.4 times without), PyTorch in bfloat16, ONNX Runtime, and the faster of two bare
loops of the same runtime over batches of one fixed shape, of which 85% are wanted: they get the
same uint8 pixels in batches as large as ours, and one has its threads pinned, as is the runtime's
default. With decoding, the goal's PyTorch has what comes with it, Pillow and torchvision's
transforms, in as many threads, one batch ahead; the other peers have our decoder so. Weights are
random: no speed depends on them.
CPU time is printed beside, which others on the machine disturb less; on one core (`taskset -c 0`)
no thread of a peer spends it waiting for another. Cosines are to PyTorch's float32, over real
photographs. Random weights give all photographs nearly one direction, so the cosine of what is left
without the mean of all is the stricter one.
"""

from __future__ import annotations

import hashlib
import io
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks._infer_peers import SIZE, THREADS, Pixels, Torch, Vectors, bare_loop
from benchmarks._photographs import encoded, made, paths
from benchmarks._rows import Row, arguments, report
from visionloop.config import InferenceConfig
from visionloop.inference.embedder import OnnxEmbedder
from visionloop.inference.embedding import PARALLEL_BATCH, embed_and_predict
from visionloop.inference.network import LEAST_COSINE, choose
from visionloop.inference.pending import Models, Pending
from visionloop.inference.preprocessing import decoded_side, picture_to_pixels, scaled
from visionloop.inference.session import start_session
from visionloop.media.decode import decode_stored, upright
from visionloop.training.embedding_export import export_embedding

LEAST_CENTRED = 0.99


@dataclass
class Contender:
    """One way to do the work.

    Attributes:
        name: With its version and settings.
        work: Does all of it once, and returns the vectors.
        seconds: Wall-clock time of each turn.
        cpu: Processor time of each turn.
    """

    name: str
    work: Callable[[], Vectors]
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    vectors: Vectors | None = None

    def turn(self) -> None:
        """Do the work once, and note its time."""
        began, spent = time.perf_counter(), time.process_time()
        self.vectors = self.work()
        self.seconds.append(time.perf_counter() - began)
        self.cpu.append(time.process_time() - spent)

    def rate(self, n: int) -> float:
        """Images per second, the median of the turns."""
        return n / statistics.median(self.seconds)

    def cost(self, n: int) -> float:
        """Milliseconds of processor time for an image, the median of the turns."""
        return statistics.median(self.cpu) / n * 1e3


def photographs(folder: Path, number: int) -> dict[str, str]:
    """Return the URI of each photograph by its sample id: real ones where there are some."""
    files = [*paths("clothing"), *paths("bccd")]
    if not files:
        for seed in range(number):
            path = folder / f"{seed}.jpg"
            path.write_bytes(encoded(made(640, 480, seed)))
            files.append(path)
    step = max(1, len(files) // number)
    chosen = files[::step][:number]
    return {hashlib.sha256(path.read_bytes()).hexdigest(): path.as_uri() for path in chosen}


def prepared(uri: str) -> Pixels:
    """Decode a photograph as the stage does."""
    found = decode_stored(Path(uri.removeprefix("file://")).read_bytes(), draft=decoded_side(SIZE))
    return picture_to_pixels(upright(found.image, found.exif), SIZE)


def ahead(media: Mapping[str, str], make: Callable[[str], Any], step: int) -> Iterator[list[Any]]:
    """Yield batches of what threads make of the files, one batch ahead."""
    uris = [media[name] for name in sorted(media)]
    with ThreadPoolExecutor(THREADS) as pool:
        waiting = None
        for start in range(0, len(uris), step):
            following = [pool.submit(make, uri) for uri in uris[start : start + step]]
            if waiting:
                yield [one.result() for one in waiting]
            waiting = following
        yield [one.result() for one in waiting or []]


def in_turns(contenders: Sequence[Contender], turns: int) -> None:
    """Let each work once unmeasured, then in turns, beginning with another each time."""
    for one in contenders:
        one.work()
    for turn in range(turns):
        for place in range(len(contenders)):
            contenders[(turn + place) % len(contenders)].turn()


def least_cosines(found: Vectors, expected: Vectors) -> tuple[float, float]:
    """Return the least cosine, as it is and of what differs from the mean of all images."""

    def least(a: Vectors, b: Vectors) -> float:
        lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        return float(((a * b).sum(axis=1) / lengths).min())

    mean = expected.mean(axis=0)
    return least(found, expected), least(found - mean, expected - mean)


def embedder(onnx: bytes, precision: Any = "auto") -> OnnxEmbedder:
    """Return our embedder on the runtime of the processor."""
    config = InferenceConfig(precision=precision)
    return OnnxEmbedder(onnx, where="resnet18", image_size=SIZE, source="s", inference=config)


class _Silent:
    def advance(self, by: int = 1) -> None:
        pass


def ours_alone(one: OnnxEmbedder, pixels: Pixels) -> Vectors:
    """Embed decoded images as the stage does: as many batches at once as it does."""
    starts = range(0, len(pixels), PARALLEL_BATCH)
    parts = [pixels[start : start + PARALLEL_BATCH] for start in starts]
    with ThreadPoolExecutor(one.parallel) as pool:
        return np.concatenate(list(pool.map(one.embed, parts)))


def ours_from_files(one: OnnxEmbedder, media: Mapping[str, str]) -> Vectors:
    """Read, check, decode and embed files as the stage does, to the table that it keeps."""
    bar: Any = _Silent()
    table = embed_and_predict(media, Pending(set(media)), Models(one), bar)
    flat = b"".join(table["vector"].to_pylist())
    return np.frombuffer(flat, "<f4").reshape(len(media), -1)


def memory_row(one: OnnxEmbedder, media: Mapping[str, str]) -> Row:
    """Return how much the peak of memory grows when the work has become four times as much."""
    ours_from_files(one, media)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(3):
        ours_from_files(one, media)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    case = "peak memory of four times as many images"
    return Row(case, after / 2**20, "of once as many", before / 2**20, "GiB", 0.95)


def rows_of(
    what: str, n: int, ours: Contender, goals: Sequence[tuple[Contender, float | None]]
) -> list[Row]:
    """Return a row in images per second and one in processor time for each peer."""
    rows = []
    for peer, goal in goals:
        rate = Row(what, ours.rate(n), peer.name, peer.rate(n), "img/s", goal, False)
        cost = Row(f"{what}: CPU", ours.cost(n), peer.name, peer.cost(n), "ms")
        rows += [rate, cost]
    return rows


def main() -> None:
    """Measure, and print the rows."""
    options = arguments(__doc__)
    with TemporaryDirectory() as folder:
        rows = measure(Path(folder), quick=options.quick)
    report("infer", rows, as_json=options.json)


def measure(folder: Path, *, quick: bool) -> list[Row]:
    """Return all rows."""
    import torch
    from torchvision import models, transforms

    torch.manual_seed(0)
    buffer = io.BytesIO()
    network = models.resnet18(weights=None)
    network.fc = torch.nn.Identity()
    torch.save(network.state_dict(), buffer)
    state = buffer.getvalue()
    onnx = export_embedding("resnet18", image_size=SIZE, state=state, where="random weights")
    media = photographs(folder, 96 if quick else 240)
    n, turns = len(media), 3 if quick else 5
    one, plain = embedder(onnx), embedder(onnx, "float32")
    # First, before others need more.
    memory = memory_row(one, media)
    pixels = np.stack([prepared(media[name]) for name in sorted(media)])
    images = scaled(pixels)
    eager, half = Torch(state), Torch(state, half=True)
    session = start_session(onnx, where="resnet18")
    choice = choose(InferenceConfig())
    fast = choice.precision == "bfloat16"
    goal = 2.5 if fast else 1.4
    hint = "bf16" if fast else "f32"

    def batches(step: int) -> Iterator[Pixels]:
        for start in range(0, n, step):
            yield pixels[start : start + step]

    def floats(step: int) -> Iterator[NDArray[np.float32]]:
        for start in range(0, n, step):
            yield images[start : start + step]

    def decoded(step: int) -> Iterator[Pixels]:
        for batch in ahead(media, prepared, step):
            yield np.stack(batch)

    def decoded_floats(step: int) -> Iterator[NDArray[np.float32]]:
        for batch in decoded(step):
            yield scaled(batch)

    stock = transforms.Compose(
        [
            transforms.Resize(SIZE),
            transforms.CenterCrop(SIZE),
            transforms.ToTensor(),
        ]
    )

    def by_pillow(uri: str) -> NDArray[np.float32]:
        return np.asarray(stock(Image.open(uri.removeprefix("file://")).convert("RGB")))

    def run(
        network: Callable[[NDArray[np.float32]], Vectors],
        source: Callable[[int], Iterator[NDArray[np.float32]]],
    ) -> Callable[[], Vectors]:
        return lambda: np.concatenate([network(batch) for batch in source(16)])

    def onnx_runtime(batch: NDArray[np.float32]) -> Vectors:
        return np.asarray(session.run(["embedding"], {"image": batch})[0])

    torch_name = f"torch {version('torch')} channels-last"
    ort_name = f"ONNX Runtime {version('onnxruntime')} float32"
    rows = [memory]
    expected: Vectors | None = None
    for what, raw, source in (
        ("decoded already", batches, floats),
        ("from files", decoded, decoded_floats),
    ):
        alone = raw is batches
        ours = Contender(
            "ours",
            (lambda: ours_alone(one, pixels)) if alone else (lambda: ours_from_files(one, media)),
        )
        exact = Contender(
            "ours in float32",
            (lambda: ours_alone(plain, pixels))
            if alone
            else (lambda: ours_from_files(plain, media)),
        )
        torch_f32 = Contender(f"{torch_name} float32", run(eager, source))
        torch_bf16 = Contender(f"{torch_name} bfloat16", run(half, source))
        ort = Contender(ort_name, run(onnx_runtime, source))
        loops = [
            Contender(told, bare_loop(onnx, raw, hint, pinned=pinned))
            for told, pinned in (("bare loop", False), ("bare loop, pinned", True))
        ]
        others = [torch_f32, torch_bf16, ort, *loops]
        judged = torch_f32
        if not alone:

            def pillow(step: int) -> Iterator[NDArray[np.float32]]:
                for batch in ahead(media, by_pillow, step):
                    yield np.stack(batch)

            judged = Contender(f"{torch_name} float32, Pillow", run(eager, pillow))
            others.append(judged)
        in_turns([ours, exact, *others], turns)
        best = max(loops, key=lambda one: one.rate(n))
        goals = [(other, None) for other in others if other not in (judged, best)]
        rows += rows_of(what, n, ours, [(judged, goal), (best, 0.85), *goals])
        rows += rows_of(f"{what}, in float32", n, exact, [(judged, 1.4)])
        expected = torch_f32.vectors if expected is None else expected
        for name, contender in (("ours", ours), ("ours in float32", exact)):
            assert contender.vectors is not None and expected is not None
            least, centred = least_cosines(contender.vectors, expected)
            case = f"{what}: least cosine of {name} to torch"
            rows.append(Row(case, least, "wanted", LEAST_COSINE, "", 1.0, False))
            case = f"{case}, less the mean"
            rows.append(Row(case, centred, "wanted", LEAST_CENTRED, "", 1.0, False))
    return rows


if __name__ == "__main__":
    main()
