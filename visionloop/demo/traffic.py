"""Simulated production traffic: real HTTP requests over every protocol that an endpoint speaks.

What the client saw is written down by the client itself, one JSON line a request, so that what is
harvested later can be compared with it: nothing here goes through the loop.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
from PIL import Image

from visionloop.demo.pictures import jpeg, png
from visionloop.demo.world import Picture
from visionloop.media.decode import decode_rgb

CONCURRENCY = 8
TIMEOUT_S = 30.0
SHIFTS = ("inverted", "noisy", "rotated", "dark")

# Protocol, share of the requests, largest number of images in one.
PROTOCOLS = (
    ("v1-image", 0.4, 1),
    ("v1-base64", 0.2, 2),
    ("v2-bytes", 0.2, 4),
    ("v2-fp32", 0.1, 2),
    ("v2-binary", 0.1, 2),
)


@dataclass(frozen=True)
class Sent:
    """What was sent, and what came back.

    Attributes:
        requests: Requests sent.
        images: Images in them.
        answered: Images that came back with probabilities: the events to be harvested.
        failed: Requests that did not come back with status 200 and probabilities.
        shifted: Images that were unlike those of training.
        seconds: How long it took.
    """

    requests: int
    images: int
    answered: int
    failed: int
    shifted: int
    seconds: float


@dataclass
class Exchange:
    """A line of the client's log.

    Attributes:
        seq: Number of the request.
        protocol: One of `PROTOCOLS`.
        request_sha256: SHA-256 of the request's body.
        sample_ids: SHA-256 of each image's bytes; null where a tensor was sent.
        tensor_sha256: SHA-256 of each tensor's little-endian bytes; null where bytes were sent.
        labels: True class of each image.
        shifts: What was done to each image; empty when nothing was.
        sent_at: Seconds since 1970.
        status: HTTP status; 0 where no answer came.
        error: What went wrong; empty when nothing did.
        model_id: The model that answered.
        probabilities: What it answered, a list of the classes' probabilities for each image.
    """

    seq: int
    protocol: str
    request_sha256: str
    sample_ids: list[str | None]
    tensor_sha256: list[str | None]
    labels: list[str]
    shifts: list[str]
    sent_at: float = 0.0
    status: int = 0
    error: str = ""
    model_id: str = ""
    probabilities: list[list[float]] | None = None


@dataclass(frozen=True)
class _Request:
    path: str
    body: bytes
    headers: dict[str, str]
    exchange: Exchange


def send_traffic(
    url: str,
    model_name: str,
    images: Sequence[Picture],
    *,
    seed: int = 0,
    n_requests: int = 400,
    shifted_share: float = 0.15,
    log: str | Path | None = None,
) -> Sent:
    """Send images to an endpoint, and write down what came back.

    Args:
        url: The predictor, for example ``http://127.0.0.1:8080``.
        model_name: Name of the model in the paths.
        images: Pictures to draw from, in order; used again once all were sent.
        seed: Seed of protocols, batch sizes and shifts: the same requests for the same seed.
        n_requests: Number of requests.
        shifted_share: Share of the images that are inverted, noisy, rotated or dark.
        log: File that receives an `Exchange` a line; None for no log.

    Returns:
        The counts; a request that fails is counted, never raised.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    requests = _requests(model_name, images, rng, n_requests, shifted_share) if images else []
    began = time.monotonic()
    limits = httpx.Limits(max_connections=CONCURRENCY)
    with (
        httpx.Client(base_url=url, timeout=TIMEOUT_S, limits=limits) as client,
        ThreadPoolExecutor(CONCURRENCY, thread_name_prefix="client") as pool,
    ):
        done = list(pool.map(lambda request: _send(client, request), requests))
    seconds = time.monotonic() - began
    if log is not None:
        lines = "".join(json.dumps(asdict(exchange)) + "\n" for exchange in done)
        Path(log).parent.mkdir(parents=True, exist_ok=True)
        Path(log).write_text(lines, encoding="utf-8")
    return Sent(
        requests=len(done),
        images=sum(len(exchange.labels) for exchange in done),
        answered=sum(len(exchange.probabilities or ()) for exchange in done),
        failed=sum(exchange.probabilities is None for exchange in done),
        shifted=sum(bool(shift) for exchange in done for shift in exchange.shifts),
        seconds=seconds,
    )


def shift(data: bytes, kind: str, rng: np.random.Generator) -> bytes:
    """Return a picture unlike those of training.

    Args:
        data: Encoded picture.
        kind: One of `SHIFTS`.
        rng: Source of noise and angle.

    Returns:
        A PNG.

    Raises:
        ValueError: There is no such kind.
    """
    pixels = decode_rgb(data).astype(np.float32)
    match kind:
        case "inverted":
            pixels = 255 - pixels
        case "noisy":
            pixels = pixels + rng.normal(0, 45, pixels.shape).astype(np.float32)
        case "dark":
            pixels = pixels * float(rng.uniform(0.15, 0.3))
        case "rotated":
            angle = float(rng.choice([-1, 1]) * rng.uniform(45, 135))
            turned = Image.fromarray(pixels.astype(np.uint8)).rotate(
                angle, Image.Resampling.BICUBIC, fillcolor=tuple(int(v) for v in pixels[0, 0])
            )
            return png(turned)
        case _:
            raise ValueError(f"unknown shift {kind!r}")
    return png(Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)))


def _requests(
    model_name: str,
    images: Sequence[Picture],
    rng: np.random.Generator,
    n_requests: int,
    shifted_share: float,
) -> list[_Request]:
    names = [name for name, _, _ in PROTOCOLS]
    shares = np.array([share for _, share, _ in PROTOCOLS])
    largest = {name: most for name, _, most in PROTOCOLS}
    requests = []
    position = 0
    for seq in range(n_requests):
        protocol = names[rng.choice(len(names), p=shares / shares.sum())]
        batch: list[tuple[bytes, str, str]] = []
        for _ in range(int(rng.integers(1, largest[protocol] + 1))):
            picture = images[position % len(images)]
            position += 1
            kind = str(rng.choice(SHIFTS)) if rng.random() < shifted_share else ""
            data = shift(picture.data, kind, rng) if kind else picture.data
            batch.append((data, picture.label, kind))
        requests.append(_request(seq, protocol, model_name, batch, rng))
    return requests


def _request(
    seq: int,
    protocol: str,
    model_name: str,
    batch: Sequence[tuple[bytes, str, str]],
    rng: np.random.Generator,
) -> _Request:
    data = [item[0] for item in batch]
    headers = {"Content-Type": "application/json"}
    tensors: list[str | None] = [None] * len(batch)
    path = f"/v2/models/{model_name}/infer"
    match protocol:
        case "v1-image":
            path = f"/v1/models/{model_name}:predict"
            # A picture that is to join with the bucket's keeps its bytes: only a shifted one, which
            # is nobody's, may be encoded again.
            if batch[0][2] and rng.random() < 0.5:
                data = [jpeg(Image.fromarray(decode_rgb(data[0])), 92)]
            is_jpeg = data[0].startswith(b"\xff\xd8")
            headers = {"Content-Type": "image/jpeg" if is_jpeg else "image/png"}
            body = data[0]
        case "v1-base64":
            path = f"/v1/models/{model_name}:predict"
            body = _json({"instances": [{"b64": _base64(item)} for item in data]})
        case "v2-bytes":
            body = _json(_v2(seq, [len(data)], "BYTES", data=[_base64(item) for item in data]))
        case "v2-fp32" | "v2-binary":
            array = np.stack([_tensor(item) for item in data])
            tensors = [hashlib.sha256(row.tobytes()).hexdigest() for row in array]
            shape = list(array.shape)
            if protocol == "v2-fp32":
                body = _json(_v2(seq, shape, "FP32", data=array.ravel().tolist()))
            else:
                size = {"binary_data_size": array.nbytes}
                head = _json(_v2(seq, shape, "FP32", parameters=size))
                headers = {
                    "Content-Type": "application/octet-stream",
                    "Inference-Header-Content-Length": str(len(head)),
                }
                body = head + array.tobytes()
        case _:
            raise ValueError(f"unknown protocol {protocol!r}")
    samples = [
        None if tensor else hashlib.sha256(item).hexdigest()
        for tensor, item in zip(tensors, data, strict=True)
    ]
    exchange = Exchange(
        seq=seq,
        protocol=protocol,
        request_sha256=hashlib.sha256(body).hexdigest(),
        sample_ids=samples,
        tensor_sha256=tensors,
        labels=[label for _, label, _ in batch],
        shifts=[kind for _, _, kind in batch],
    )
    return _Request(path, body, headers, exchange)


def _v2(seq: int, shape: list[int], datatype: str, **rest: Any) -> dict[str, Any]:
    image = {"name": "image", "shape": shape, "datatype": datatype, **rest}
    return {"id": f"demo-{seq}", "inputs": [image]}


def _tensor(data: bytes) -> npt.NDArray[np.float32]:
    """Return float32 [3, height, width] in 0..1, little-endian."""
    return np.ascontiguousarray(decode_rgb(data).transpose(2, 0, 1) / np.float32(255), "<f4")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _send(client: httpx.Client, request: _Request) -> Exchange:
    exchange = request.exchange
    exchange.sent_at = time.time()
    try:
        answer = client.post(request.path, content=request.body, headers=request.headers)
    except httpx.HTTPError as error:
        exchange.error = f"{type(error).__name__}: {error}"
        return exchange
    exchange.status = answer.status_code
    if answer.status_code != 200:
        exchange.error = answer.text[:300]
        return exchange
    try:
        exchange.model_id, probabilities = _read(answer.json())
    except (KeyError, IndexError, TypeError, ValueError) as error:
        exchange.error = f"cannot read the answer: {type(error).__name__}: {error}"
        return exchange
    if len(probabilities) != len(exchange.labels):
        exchange.error = f"{len(probabilities)} answers to {len(exchange.labels)} images"
        return exchange
    exchange.probabilities = probabilities
    return exchange


def _read(answer: Any) -> tuple[str, list[list[float]]]:
    """Return the model's id and the probabilities of a V1 or V2 answer."""
    if "predictions" in answer:
        rows = [
            row["probabilities"] if isinstance(row, dict) else row for row in answer["predictions"]
        ]
        rows = [list(row.values()) if isinstance(row, dict) else row for row in rows]
        return str(answer.get("model_id", "")), [[float(v) for v in row] for row in rows]
    output = {out["name"]: out for out in answer["outputs"]}["probabilities"]
    flat = np.array(output["data"], dtype=np.float64).reshape(output["shape"])
    return str(answer.get("model_version", "")), flat.tolist()
