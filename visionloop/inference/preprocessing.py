"""From a decoded image to a network's input: one function for training, inference and serving."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from visionloop.errors import InputError

# Written into every model card: a model is only right with the preprocessing it was trained with.
PREPROCESSING = "rgb/255; shorter side resized (bilinear, antialiased); centre crop"


def to_input(image: NDArray[np.uint8], size: int) -> NDArray[np.float32]:
    """Resize the shorter side to `size`, crop the centre, and scale to 0..1.

    Pillow's bilinear filter widens with the reduction, so a large photograph is not aliased.
    Normalisation by mean and deviation is inside the network, not here.

    Args:
        image: uint8 [H, W, 3], [H, W, 1] or [H, W]; gray becomes RGB of three equal channels.
        size: Side of the square, in pixels.

    Returns:
        float32 [3, size, size], RGB, in 0..1.

    Raises:
        InputError: The array is no uint8 image with one or three channels.
    """
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8:
        raise InputError(
            f"an image must be uint8, this one is {pixels.dtype}",
            remedy="Pass the decoded image, not one that is already scaled",
        )
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3) or not pixels.size:
        raise InputError(
            f"an image must have shape [H, W, 3] or [H, W], this one is {list(pixels.shape)}",
            remedy="Decode it with visionloop.media.decode.decode_rgb",
        )
    return picture_to_input(Image.fromarray(np.ascontiguousarray(pixels)), size)


def picture_to_input(
    picture: Image.Image, size: int, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Do as `to_input` for a picture as a decoder leaves it, without copies of the whole of it.

    Args:
        picture: Upright, of mode L, RGB or RGBX.
        size: Side of the square, in pixels.
        out: float32 [3, size, size] to write into, a row of a batch.

    Returns:
        `out`, or a new array, with the numbers that `to_input` gives for the same pixels.
    """
    pixels = np.asarray(_square(picture, size))
    planes = pixels[:, :, :3].transpose(2, 0, 1) if pixels.ndim == 3 else pixels[None]
    if out is None:
        out = np.empty((3, size, size), np.float32)
    np.divide(planes, np.float32(255), out=out)
    return out


def picture_to_pixels(picture: Image.Image, size: int) -> NDArray[np.uint8]:
    """Return what `picture_to_input` scales: a quarter of the memory, and as exact.

    Args:
        picture: Upright, of mode L, RGB or RGBX.
        size: Side of the square, in pixels.

    Returns:
        uint8 [size, size, 3].
    """
    return np.asarray(_square(picture, size).convert("RGB"))


def scaled(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return what networks take, float32 [n, 3, S, S] in 0..1, of uint8 [n, S, S, 3]."""
    planes = np.empty((len(pixels), 3, *pixels.shape[1:3]), np.float32)
    np.divide(pixels.transpose(0, 3, 1, 2), np.float32(255), out=planes)
    return planes


def decoded_side(size: int) -> int:
    """Return how many pixels the shorter side of a photograph must keep when it is decoded.

    A JPEG is decoded at a reduced scale several times as fast, and what is then reduced by the
    filter as much again hardly differs: the cosine of embeddings is above .9999.

    Args:
        size: Side of a network's input.
    """
    return max(2 * size, 256)


def _square(picture: Image.Image, size: int) -> Image.Image:
    width, height = picture.size
    if (height, width) == (size, size):
        return picture
    # Cropping and resizing in one step resamples only the pixels that are kept.
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    return picture.resize(
        (size, size),
        resample=Image.Resampling.BILINEAR,
        box=(left, top, left + side, top + side),
    )


def to_batch(images: Sequence[NDArray[np.uint8]], size: int) -> NDArray[np.float32]:
    """Stack `to_input` of each image.

    Returns:
        float32 [n, 3, size, size]; n may be 0.
    """
    batch = np.empty((len(images), 3, size, size), dtype=np.float32)
    for row, image in enumerate(images):
        batch[row] = to_input(image, size)
    return batch
