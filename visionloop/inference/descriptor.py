"""A descriptor of pixels that needs no weights: what the first round sees by.

Each image becomes a vector of three parts, each of length 1 before it is weighted:

- *shape*, weight 1: luminance on a 16 by 16 grid, less its mean and divided by its deviation, so
  that two exposures of one scene agree;
- *edges*, weight 1: histograms of gradient orientation (eight directions over 180 degrees, weighted
  by magnitude) in a grid of 4 by 4 cells of the 32 by 32 luminance, which tolerate small shifts
  (Dalal and Triggs, Histograms of Oriented Gradients, CVPR 2005);
- *colour*, weight 1/2: the means of the two chroma channels in a grid of 4 by 4 cells. It is zero
  for gray images and so costs them nothing.

The vectors are then centred and projected on their principal components. Mean and components are
fitted once, on the first intake, and frozen in the lake: a space whose axes moved with every intake
could not be compared with itself. The space's name carries their hash.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from visionloop.errors import InputError
from visionloop.inference.preprocessing import picture_to_input

SIDE = 32
GRID = 16
CELLS = 4
DIRECTIONS = 8
COLOUR_WEIGHT = 0.5
N_FEATURES = GRID * GRID + CELLS * CELLS * DIRECTIONS + CELLS * CELLS * 2
# Changes whenever the features do: descriptors fitted on other features are refused.
FEATURES_VERSION = 1
# Principal components of a few thousand images hardly move when more are added.
FIT_SAMPLES = 4096
# Cr and Cb of ITU-R BT.601, from R, G, B in 0..1.
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_CHROMA = np.array([[-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]], dtype=np.float32)


def pixel_features(picture: Image.Image, size: int = SIDE) -> NDArray[np.float32]:
    """Return a picture's shape, edge and colour features, as the module describes them.

    Args:
        picture: Upright, of mode L, RGB or RGBX.
        size: Side in pixels that the picture is reduced to, a multiple of 16.

    Returns:
        float32 [416].
    """
    rgb = picture_to_input(picture, size)
    luma = np.tensordot(_LUMA, rgb, axes=1)
    shape = _blocks(luma, GRID).mean(axis=(1, 3))
    shape = _unit((shape - shape.mean()).ravel())
    dy, dx = np.gradient(luma)
    magnitude = np.hypot(dx, dy)
    # Orientation modulo 180 degrees, shared between the two nearest of the eight directions.
    place = (np.arctan2(dy, dx) % np.pi) / np.pi * DIRECTIONS
    lower = np.floor(place).astype(np.intp)
    share = (place - lower).astype(np.float32)
    directions = np.arange(DIRECTIONS)[:, None, None]
    maps = np.where(directions == lower % DIRECTIONS, magnitude * (1 - share), 0)
    maps = maps + np.where(directions == (lower + 1) % DIRECTIONS, magnitude * share, 0)
    step = size // CELLS
    edges = maps.reshape(DIRECTIONS, CELLS, step, CELLS, step).sum(axis=(2, 4))
    # The square root keeps one strong contour from hiding the rest of the picture.
    edges = _unit(np.sqrt(edges).ravel())
    chroma = np.tensordot(_CHROMA, rgb, axes=1).reshape(2, CELLS, step, CELLS, step)
    colour = chroma.mean(axis=(2, 4)).ravel()
    # Not scaled to length 1: a gray picture's rounding noise is not a colour.
    parts = [shape, edges, COLOUR_WEIGHT * colour * np.float32(4)]
    return np.concatenate(parts).astype(np.float32)


def _blocks(plane: NDArray[np.float32], grid: int) -> NDArray[np.float32]:
    step = plane.shape[0] // grid
    return plane.reshape(grid, step, grid, step)


def _unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    length = float(np.linalg.norm(vector))
    # A blank picture has no shape and no edges; dividing would make some up.
    return vector / np.float32(length) if length > 1e-3 else np.zeros_like(vector)


@dataclass(frozen=True)
class PixelDescriptor:
    """A fitted descriptor.

    Attributes:
        mean: float32 [416].
        components: float32 [d, 416], orthonormal rows.
        size: Side in pixels that images are reduced to.
        fitted_on: Number of images that it was fitted on.
    """

    mean: NDArray[np.float32]
    components: NDArray[np.float32]
    size: int
    fitted_on: int

    @property
    def dimensions(self) -> int:
        """Number of components."""
        return len(self.components)

    @property
    def space(self) -> str:
        """Name of the embedding space, with the hash of all that the vectors depend on."""
        digest = hashlib.sha256(f"{FEATURES_VERSION} {self.size} {self.components.shape}".encode())
        digest.update(np.ascontiguousarray(self.mean, dtype="<f4").tobytes())
        digest.update(np.ascontiguousarray(self.components, dtype="<f4").tobytes())
        return f"pixels_{digest.hexdigest()[:8]}"

    def embed(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Project features and scale them to length 1.

        Args:
            features: float32 [n, 416] of `pixel_features`.

        Returns:
            float32 [n, d]; each row has length 1.
        """
        vectors = (features - self.mean) @ self.components.T
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        # An image that is exactly the mean has no direction: it gets the first axis.
        lost = lengths[:, 0] < 1e-6
        vectors[lost] = 0
        vectors[lost, 0] = 1
        lengths[lost] = 1
        return np.ascontiguousarray(vectors / lengths, dtype=np.float32)

    def to_bytes(self) -> bytes:
        """Return the descriptor as the bytes of an npz file."""
        buffer = io.BytesIO()
        np.savez(
            buffer,
            version=np.int64(FEATURES_VERSION),
            size=np.int64(self.size),
            fitted_on=np.int64(self.fitted_on),
            mean=self.mean,
            components=self.components,
        )
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, *, where: str) -> PixelDescriptor:
        """Read what `to_bytes` wrote.

        Raises:
            InputError: The bytes are no descriptor of this version.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as held:
                if int(held["version"]) != FEATURES_VERSION:
                    raise InputError(
                        f"the descriptor is of version {int(held['version'])}, this visionloop "
                        f"makes version {FEATURES_VERSION}",
                        where=where,
                        remedy="Use the visionloop that made this lake",
                    )
                return cls(
                    held["mean"], held["components"], int(held["size"]), int(held["fitted_on"])
                )
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(
                f"not a descriptor: {error}",
                where=where,
                remedy="Restore the file: the lake's embeddings were made with it",
            ) from error


def fit_descriptor(
    features: NDArray[np.float32], *, dimensions: int, size: int = SIDE
) -> PixelDescriptor:
    """Fit the principal components of features.

    Where there are fewer images than dimensions, the components that they span are completed by
    seeded random directions orthogonal to them, so that later images differ in all dimensions.

    Args:
        features: float32 [n, 416] of `pixel_features`.
        dimensions: Number of components, at most 416.
        size: Side that the features were made with.

    Returns:
        The descriptor. The same features give the same one. Cost O(n·416² + 416³).

    Raises:
        InputError: There are no features, or more dimensions than features.
    """
    if not len(features):
        raise InputError(
            "no readable image to fit the pixel descriptor on", remedy="Ingest images first"
        )
    if dimensions > N_FEATURES:
        raise InputError(
            f"the pixel descriptor has at most {N_FEATURES} dimensions, not {dimensions}",
            where="embedding.dimensions",
            remedy="Lower it",
        )
    wide = features.astype(np.float64)
    mean = wide.mean(axis=0)
    centred = wide - mean
    values, vectors = np.linalg.eigh(centred.T @ centred)
    spanned = int((values > max(values[-1], 0) * 1e-9).sum()) if values[-1] > 0 else 0
    kept = vectors[:, ::-1][:, : min(spanned, dimensions)]
    if kept.shape[1] < dimensions:
        rng = np.random.Generator(np.random.PCG64(0))
        filling = rng.standard_normal((N_FEATURES, dimensions - kept.shape[1]))
        kept = np.linalg.qr(np.concatenate([kept, filling], axis=1))[0]
    # The sign of an eigenvector is arbitrary: its largest component is made positive.
    signs = np.sign(kept[np.abs(kept).argmax(axis=0), np.arange(kept.shape[1])])
    components = (kept * signs).T.astype(np.float32)
    return PixelDescriptor(mean.astype(np.float32), components, size, len(features))
