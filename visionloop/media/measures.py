"""What a picture's grey values say about its quality."""

from __future__ import annotations

from threading import local
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

MEASURED_SIDE = 256
# A picture whose shorter side is within a tenth of it is measured as it is: 1/4 of 1080 rows are
# 270, and resampling those to 256 costs as much as all measures together.
_TOLERATED = 0.1
LEAST_SIDE = round(MEASURED_SIDE * (1 - _TOLERATED))
_LEVELS = np.arange(256)
_MOST_SIDE = round(MEASURED_SIDE * (1 + _TOLERATED))
_OF_THREAD = local()


class Measures(NamedTuple):
    """Measures of a grey picture.

    Attributes:
        sharpness: Variance of the Laplacian of the slightly smoothed picture over the variance of
            its grey values: 0 for a flat picture, 0.003 to 0.4 for photographs, 0.4 for
            white noise. The ratio does not change with exposure, so a dark picture is not taken
            for a blurred one.
        brightness: Mean grey value, 0 black to 1 white.
        contrast: Standard deviation of the grey values, 0 to 0.5.
        entropy: Shannon entropy of the histogram of grey values in bits, 0 for one value, 8 for
            all alike.
    """

    sharpness: float
    brightness: float
    contrast: float
    entropy: float


def normalised(grey: Image.Image) -> Image.Image:
    """Reduce a picture whose shorter side has over 282 pixels to one of `MEASURED_SIDE`.

    So measures mean the same for a photograph and for its thumbnail.
    """
    if min(grey.size) <= _MOST_SIDE:
        return grey
    factor = min(grey.size) / MEASURED_SIDE
    size = (max(1, round(grey.width / factor)), max(1, round(grey.height / factor)))
    return grey.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)


def measures(picture: Image.Image) -> Measures:
    """Return the measures of a grey picture, in the picture as it is.

    The variance of the Laplacian as a measure of focus: Pech-Pacheco et al., Diatom autofocusing in
    brightfield microscopy, ICPR 2000. The picture is smoothed first (binomial 3 x 3), because a
    blurred picture from a noisy sensor would pass for a sharp one: of digits with sensor noise that
    were blurred by 2.5 pixels, an outlier rule finds 97% with smoothing and 45% without.

    Args:
        picture: Of mode L.
    """
    grey = np.asarray(picture)
    counts = np.asarray(picture.histogram(), dtype=np.int64)
    n = grey.size
    total, squares = int(counts @ _LEVELS), int(counts @ _LEVELS**2)
    variance = (squares - total**2 / n) / n / 255**2
    shares = counts[counts > 0] / n
    entropy = max(0.0, float(-(shares * np.log2(shares)).sum()))
    brightness, contrast = total / n / 255, float(np.sqrt(max(0.0, variance)))
    if min(grey.shape) < 5 or variance < 1e-10:
        return Measures(0.0, brightness, contrast, entropy)
    return Measures(_laplacian_variance(grey) / variance, brightness, contrast, entropy)


def saturation(pixels: npt.NDArray[np.uint8]) -> float:
    """Return how colourful a picture is: the mean distance of its strongest and weakest channel.

    Args:
        pixels: A thumbnail, uint8 [height, width] or [height, width, 3 or 4].

    Returns:
        0 for a grey picture to 1.
    """
    if pixels.ndim == 2:
        return 0.0
    # A thousand pixels make a mean.
    step = max(1, max(pixels.shape) // 40)
    planes = np.ascontiguousarray(pixels[::step, ::step, :3].transpose(2, 0, 1))
    return float((planes.max(axis=0) - planes.min(axis=0)).mean(dtype=np.float64)) / 255


def _laplacian_variance(grey: npt.NDArray[np.uint8]) -> float:
    """Return the variance of the Laplacian of the smoothed picture, of values from 0 to 1.

    Its mean is left out: it is a difference of the picture's borders, and next to nothing. All in
    whole numbers (the smoothed values times 16 reach 4,080, their Laplacian 16,320), and in one
    line of all pixels, which is twice as fast as row by row; sums that reach around the end of a
    row are struck out at last.
    """
    height, width = grey.shape
    left, right, squared = _scratch(grey.size)
    left[: grey.size].reshape(grey.shape)[:] = grey
    line = left[: grey.size]
    # 1 2 1 is 1 1 twice: down the columns, then along the rows, each sum into the other array.
    twos = np.add(line[:-width], line[width:], out=right[: line.size - width])
    columns = np.add(twos[:-width], twos[width:], out=left[: twos.size - width])
    twos = np.add(columns[:-1], columns[1:], out=right[: columns.size - 1])
    smooth = np.add(twos[:-1], twos[1:], out=left[: twos.size - 1])
    centre = smooth[width:-width]
    around = np.add(smooth[: -2 * width], smooth[2 * width :], out=right[: centre.size])[1:-1]
    around += centre[:-2]
    around += centre[2:]
    for _ in range(4):
        around -= centre[1:-1]
    laplacian = squared[: (height - 4) * width]
    laplacian[: around.size] = around
    laplacian.reshape(height - 4, width)[:, -4:] = 0
    # einsum and not a dot product: BLAS would start threads of its own beside ours.
    squares = float(np.einsum("i,i->", laplacian, laplacian))
    return float(squares / ((height - 4) * (width - 4)) / (16 * 255) ** 2)


def _scratch(size: int) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int16], npt.NDArray[Any]]:
    """Return arrays of the thread's own for pictures of so many pixels.

    An array of this size that is made anew costs more in page faults than in sums: the allocator
    gives its pages back each time.
    """
    held: tuple[Any, ...] = getattr(_OF_THREAD, "arrays", ())
    if not held or len(held[0]) < size:
        shapes = (np.int16, np.int16, np.float32)
        held = _OF_THREAD.arrays = tuple(np.empty(size, dtype) for dtype in shapes)
    left, right, squared = held
    return left, right, squared
