"""Requests to the predictor in KServe's protocols V1 and V2 (JSON, binary, gRPC), and their images.

Accepted:

- V1 ``{"instances": […]}``: an instance is ``{"b64": …}`` or ``{"<any name>": {"b64": …}}`` with an
  encoded image, or nested lists of pixels [H][W][3] or [H][W], whole numbers 0..255.
- V1 with the image itself as the body, whatever its content type says.
- V2 tensors: BYTES [N] (encoded images; base64 in JSON, base64 or plain in binary and gRPC), FP32
  [N,3,H,W] or [N,H,W,3] in 0..1, UINT8 likewise in 0..255. Where both a second and a last dimension
  of 3 fit, the channels are taken to come first.

Tensors of another size than the model's are resized as images are. The embedding is asked for by
``"parameters": {"embedding": true}`` in V1 and V2, by ``?embedding=true`` beside a raw image, or as
an output of that name in V2.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from visionloop.errors import InputError, UnreadableMedia
from visionloop.inference import to_input
from visionloop.inference.preprocessing import picture_to_input
from visionloop.media import sniff
from visionloop.media.budget import DECODING, Budget
from visionloop.media.decode import decode_upright
from visionloop.serving.bodies import MAX_VALUES, Undecodable, base64_bytes, parse_json
from visionloop.serving.tensors import Tensor, json_tensors, numbers

MAX_IMAGES = 1024
# Of one image. Larger photographs are rare, and some 300 MB of memory while they are decoded.
MAX_PIXELS = 25_000_000
# Bytes of JSON that are read at a time: numbers take up to 20 times as much memory.
READING = Budget(16 * 1024 * 1024)
# A request's images may have as many pixels together as so many of the largest.
_REQUEST_IMAGES = 40

OUTPUTS = ("probabilities", "label", "embedding")

# The one input of the model, as its metadata names it.
INPUT = "image"
# Of the network's input: 445 pictures of 224 pixels a side.
_MAX_BATCH_BYTES = 256 * 1024 * 1024

Picture = bytes | NDArray[np.uint8] | NDArray[np.float32]
Pictures = Sequence[Picture] | NDArray[np.float32]

_WHY = {
    "not_utf8": "the body is neither JSON nor an image",
    "not_json": "the body is neither JSON nor an image",
    "nested_too_deep": "the JSON is nested too deeply",
    "tensors_not_a_list": "`inputs` must be a list of tensors",
    "binary_size": "the sizes in `binary_data_size` do not add up to the bytes after the JSON",
    "data_missing": "an input has no `data`",
    "ragged": "the lists of a tensor differ in length",
    "not_numbers": "a tensor holds something that is no number",
    "not_strings": "a BYTES tensor holds something that is no text",
    "out_of_range": "a number does not fit its datatype",
    "shape_invalid": "`shape` must be a list of sizes",
    "shape_mismatch": "the number of values is not what `shape` says",
    "unknown_datatype": "the datatype is not known",
    "bytes_lengths": "the elements of a binary BYTES tensor do not fit their lengths",
    "grpc_invalid": "the message is no ModelInferRequest",
    "too_many_values": f"it has more than {MAX_VALUES:,} values: send tensors as raw bytes",
}


class BadRequest(ValueError):
    """The client sent what cannot be answered: HTTP 400, gRPC INVALID_ARGUMENT.

    Attributes:
        reason: ``invalid_request``, ``invalid_image`` or ``too_large``.
    """

    def __init__(self, message: str, reason: str = "invalid_request") -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Ask:
    """A request, read.

    Attributes:
        protocol: ``v1`` or ``v2``.
        pictures: Encoded images or pixels uint8 [H, W, 3 or 1]; or all of them at once, float32
            [n, 3, H, W] in 0..1.
        embedding: Whether the embedding is wanted.
        request_id: The id of a V2 request.
        outputs: The outputs that a V2 client wants, each with whether as raw bytes; empty for all.
        binary: Whether outputs that are not named are wanted as raw bytes.
    """

    protocol: str
    pictures: Pictures = field(repr=False)
    embedding: bool = False
    request_id: str = ""
    outputs: dict[str, bool | None] = field(default_factory=dict)
    binary: bool = False


def read_v1(body: bytes, *, embedding: bool = False) -> Ask:
    """Read a V1 body: an image, or JSON with ``instances``.

    Raises:
        BadRequest: It is neither.
    """
    if not body:
        raise BadRequest('the body is empty: send an image, or {"instances": […]}')
    if sniff.kind(body[:512]):
        return Ask("v1", [body], embedding)
    with READING.share() as share:
        share.take(len(body))
        return _read_v1(_json(body)[0], embedding)


def _read_v1(value: dict[str, Any], embedding: bool) -> Ask:
    instances = value.get("instances")
    if not isinstance(instances, list) or not instances:
        raise BadRequest('`instances` must be a list of images, for example [{"b64": "…"}]')
    _check_count(len(instances))
    wanted = _flag(value.get("parameters"), "embedding") or embedding
    return Ask("v1", [_instance(n, instance) for n, instance in enumerate(instances)], wanted)


def read_v2(body: bytes, json_length: str | None) -> Ask:
    """Read a V2 body: JSON, or JSON with raw tensors after it.

    Args:
        body: The body.
        json_length: The header ``Inference-Header-Content-Length``; the end of the JSON is found
            where a client leaves it out.

    Raises:
        BadRequest: The body is no V2 request for images.
    """
    if not body:
        raise BadRequest('the body is empty: send {"inputs": […]}')
    length = len(body)
    if json_length is not None:
        length = int(json_length) if re.fullmatch("[0-9]{1,18}", json_length) else -1
        if not 0 <= length <= len(body):
            raise BadRequest("Inference-Header-Content-Length is not a length within the body")
    with READING.share() as share:
        share.take(length)
        return _read_v2(body, length)


def _read_v2(body: bytes, length: int) -> Ask:
    value, rest = _json(body[:length])
    after = memoryview(body)[length:]
    binary: bytes | memoryview = rest + bytes(after) if rest else after
    try:
        tensors = json_tensors(value.get("inputs"), binary)
    except Undecodable as error:
        raise unreadable(error) from None
    parameters = value.get("parameters")
    request_id = value.get("id")
    if not isinstance(request_id, str | None):
        raise BadRequest("`id` must be a string")
    return Ask(
        "v2",
        pictures_of(tensors),
        _flag(parameters, "embedding"),
        request_id or "",
        _wanted(value.get("outputs")),
        _flag(parameters, "binary_data_output"),
    )


def _wanted(outputs: object) -> dict[str, bool | None]:
    if outputs is None:
        return {}
    if not isinstance(outputs, list):
        raise BadRequest("`outputs` must be a list")
    found: dict[str, bool | None] = {}
    for output in outputs:
        name = output.get("name") if isinstance(output, dict) else None
        parameters = output.get("parameters") if isinstance(output, dict) else None
        named = isinstance(parameters, dict) and "binary_data" in parameters
        found[_output_name(name)] = _flag(parameters, "binary_data") if named else None
    return found


def _output_name(name: object) -> str:
    if name not in OUTPUTS:
        raise BadRequest(f"there is no output {name!r}; there are {', '.join(OUTPUTS)}")
    return str(name)


def wanted_outputs(names: Sequence[str]) -> dict[str, bool | None]:
    """Check the outputs that a gRPC client names."""
    return {_output_name(name): None for name in names}


def pictures_of(tensors: Sequence[Tensor]) -> Pictures:
    """Return the images of a V2 request, which has one input.

    Raises:
        BadRequest: The input is no batch of images.
    """
    if len(tensors) != 1:
        raise BadRequest(f"the model takes one input, `{INPUT}`; the request has {len(tensors)}")
    tensor = tensors[0]
    if tensor.name != INPUT:
        raise BadRequest(f"there is no input {tensor.name!r}; the model takes one, `{INPUT}`")
    if tensor.problem:
        raise BadRequest(f"input {tensor.name!r}: {_why(tensor.problem)}")
    _check_count(tensor.rows)
    if tensor.elements is not None:
        return [_encoded(n, element) for n, element in enumerate(tensor.elements)]
    assert tensor.array is not None
    return _pixels(tensor.name, tensor.datatype, tensor.array)


def _pixels(name: str, datatype: str, array: NDArray[Any]) -> Pictures:
    if datatype not in ("FP32", "UINT8"):
        raise BadRequest(f"input {name!r} has datatype {datatype}; use FP32, UINT8 or BYTES")
    if array.ndim != 4 or 3 not in (array.shape[1], array.shape[3]) or 0 in array.shape:
        raise BadRequest(
            f"input {name!r} has shape {list(array.shape)}; use [N,3,H,W] or [N,H,W,3]"
        )
    first = array.shape[1] == 3
    if datatype == "UINT8":
        return list(array.transpose(0, 2, 3, 1) if first else array)
    low, high = array.min(), array.max()
    if not (np.isfinite(low) and np.isfinite(high)):  # NaN anywhere makes both NaN
        raise BadRequest(f"input {name!r} holds NaN or infinity")
    if low < 0 or high > 1:
        raise BadRequest(f"input {name!r} has values outside 0..1; send pixels 0..255 as UINT8")
    return array if first else array.transpose(0, 3, 1, 2)


def _instance(number: int, instance: object) -> Picture:
    held = instance
    while isinstance(held, dict):
        if isinstance(held.get("b64"), str):
            return _encoded(number, held["b64"])
        if len(held) != 1:
            raise BadRequest(
                f'instance {number} is no image: use {{"b64": "…"}} or lists of pixels'
            )
        held = next(iter(held.values()))
    if isinstance(held, str):
        return _encoded(number, held)
    try:
        array = numbers(held if isinstance(held, list) else None)
    except Undecodable as error:
        raise BadRequest(f"instance {number}: {_why(error.reason)}") from None
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3)):
        raise BadRequest(
            f"instance {number} has shape {list(array.shape)}; use [H][W][3] or [H][W]"
        )
    if array.size == 0 or array.min() < 0 or array.max() > 255 or (array != array.round()).any():
        raise BadRequest(
            f"instance {number} must hold whole numbers 0..255; send 0..1 as a V2 FP32 tensor"
        )
    return array.astype(np.uint8)


def _encoded(number: int, element: bytes | str) -> bytes:
    if isinstance(element, bytes) and sniff.kind(element[:512]):
        return element
    data = base64_bytes(element)
    if data is None:
        raise BadRequest(
            f"image {number} is neither an encoded image nor base64 of one", "invalid_image"
        )
    return data


def _json(body: bytes) -> tuple[dict[str, Any], bytes]:
    try:
        value, rest = parse_json(body)
    except Undecodable as error:
        raise unreadable(error) from None
    if isinstance(value, dict) and "specversion" in value and isinstance(value.get("data"), dict):
        value = value["data"]  # a structured CloudEvent
    if not isinstance(value, dict):
        raise BadRequest("the JSON must be an object")
    return value, rest


def _check_count(count: int) -> None:
    if not 0 < count <= MAX_IMAGES:
        raise BadRequest(f"a request takes 1 to {MAX_IMAGES} images, this one has {count}")


def _flag(parameters: object, name: str) -> bool:
    return isinstance(parameters, dict) and parameters.get(name) in (True, "true", 1)


def unreadable(error: Undecodable) -> BadRequest:
    """Return what a client is told of a body that cannot be used."""
    too_large = error.reason == "too_many_values"
    return BadRequest(_why(error.reason), "too_large" if too_large else "invalid_request")


def _why(reason: str) -> str:
    return _WHY.get(reason, reason.replace("_", " "))


def prepare(
    pictures: Pictures,
    size: int,
    *,
    max_pixels: int = MAX_PIXELS,
    reserve: Callable[[int], None] = lambda size: None,
) -> NDArray[np.float32]:
    """Decode and resize images, one after the other.

    A JPEG is not decoded at a smaller scale, as ingest does for its measures: the network was
    trained on pictures that were decoded whole, and the result would differ by up to some 20 of
    255.

    Args:
        pictures: What a request holds.
        size: Side of the network's input.
        max_pixels: Refuse an image with more.
        reserve: Called once, with the bytes of what is returned, before any image is decoded; may
            wait.

    Returns:
        float32 [n, 3, size, size] in 0..1; a tensor of that shape as it is, not copied.

    Raises:
        BadRequest: An image cannot be decoded, or is too large, or all of them are together.
    """
    if isinstance(pictures, np.ndarray) and pictures.shape[2:] == (size, size):
        reserve(pictures.nbytes)
        return np.ascontiguousarray(pictures, np.float32)
    if (most := max(1, _MAX_BATCH_BYTES // (12 * size * size))) < len(pictures):
        raise BadRequest(
            f"a request takes up to {most} images of {size} by {size}, this one has "
            f"{len(pictures)}",
            "too_large",
        )
    reserve(12 * size * size * len(pictures))
    batch = np.empty((len(pictures), 3, size, size), np.float32)
    decoded = 0

    for number, picture in enumerate(pictures):
        if decoded > _REQUEST_IMAGES * max_pixels:
            raise BadRequest(
                f"the {number} images before image {number} have {decoded:,} pixels; a request "
                f"takes {_REQUEST_IMAGES * max_pixels:,}: send fewer images at a time",
                "too_large",
            )
        try:
            if isinstance(picture, bytes):
                with DECODING.share() as share:
                    image = decode_upright(picture, max_pixels=max_pixels, reserve=share.take)
                    picture_to_input(image, size, batch[number])
                    decoded += share.taken
                    del image
            elif picture.dtype == np.uint8:
                batch[number] = to_input(np.ascontiguousarray(picture, np.uint8), size)
            else:
                batch[number] = _resized(np.asarray(picture, np.float32), size)
        except UnreadableMedia as error:
            if error.reason == "too_large":
                raise BadRequest(
                    f"image {number} is too large, {error.detail}; an image takes up to "
                    f"{max_pixels:,} pixels, and the model looks at {size} by {size}",
                    "too_large",
                ) from None
            detail = f": {error.detail}" if error.detail else ""
            raise BadRequest(
                f"image {number} is unreadable, {error.reason}{detail}", "invalid_image"
            ) from None
        except InputError as error:
            raise BadRequest(f"image {number}: {error.what}", "invalid_image") from None
    return batch


def _resized(planes: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Resize float32 [3, H, W] as `to_input` resizes pixels: shorter side, centre crop."""
    height, width = planes.shape[1:]
    if (height, width) == (size, size):
        return planes
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return np.stack(
        [
            np.asarray(
                Image.fromarray(np.ascontiguousarray(plane)).resize(
                    (size, size), resample=Image.Resampling.BILINEAR, box=box
                )
            )
            for plane in planes
        ]
    )
