"""The images of a training set, decoded once a node."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from visionloop.errors import VisionloopError
from visionloop.inference.images import load_images
from visionloop.inference.preprocessing import decoded_side, picture_to_pixels
from visionloop.training.group import Group
from visionloop.training.plan import Plan, Unread
from visionloop.training.training_set import TrainingSet

# The images, the set that they are of, and what could not be read.
Held = tuple[NDArray[np.uint8], TrainingSet, list[Unread]]


def training_images(plan: Plan, group: Group) -> Held:
    """Read and decode a training set; the processes of one node share one copy.

    Args:
        plan: The training.
        group: The processes that train together, each of which calls this.

    Returns:
        uint8 [n, 3, size, size]; the set that they are of, in their order; what could not be read.

    Raises:
        VisionloopError: No image can be read, or nodes differ in what they can read.
    """
    if group.local_size == 1:
        images, unread = _decode(plan, None)
        return _whole(plan, images, unread)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "images.npy")
        here = _decode(plan, path)[1] if group.local_rank == 0 else []
        # The ranks of a node follow each other, and their first has decoded.
        found = group.gather((path, here))
        path, unread = found[group.rank - group.local_rank]
        # Copied on writing, which nobody does: PyTorch warns of arrays that cannot be written.
        images = np.load(path, mmap_mode="c")
        if any(other != found[0][1] for _, other in found[:: group.local_size]):
            counts = ", ".join(str(len(other)) for _, other in found[:: group.local_size])
            raise VisionloopError(
                f"the nodes cannot read the same images: unreadable are, by node, {counts}",
                where=plan.folder,
                remedy="Give the service account of every node the right to read the sources",
            )
        # The last one to open it has; the pages stay until all have closed it.
        group.gather(None)
    return _whole(plan, images, unread)


def _decode(plan: Plan, path: str | None) -> tuple[NDArray[np.uint8], list[Unread]]:
    """Return uint8 [n, 3, size, size], zeros where an image cannot be read; in a file if named."""
    size = plan.parameters.image_size
    rows = {sample_id: row for row, sample_id in enumerate(plan.training_set.sample_ids)}
    shape = (len(rows), 3, size, size)
    images: NDArray[np.uint8] = (
        np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
        if path
        else np.zeros(shape, np.uint8)
    )

    def prepare(picture: Image.Image) -> NDArray[np.uint8]:
        return picture_to_pixels(picture, size).transpose(2, 0, 1)

    unread = [
        Unread(sample_id, "", "missing", "the lake's version has no such sample")
        for sample_id in rows
        if sample_id not in plan.media
    ]
    for loaded in load_images(plan.media, prepare, side=decoded_side(size)):
        if loaded.value is None:
            unread.append(Unread(loaded.sample_id, loaded.uri, loaded.reason, loaded.detail))
        else:
            images[rows[loaded.sample_id]] = loaded.value
    return images, unread


def _whole(plan: Plan, images: NDArray[np.uint8], unread: list[Unread]) -> Held:
    if not unread:
        return images, plan.training_set, []
    used = plan.training_set.without(one.sample_id for one in unread)
    if not used.rows:
        raise VisionloopError(
            f"none of the {len(plan.training_set.rows)} labelled images can be read: "
            f"{unread[0].reason} ({unread[0].detail})",
            where=unread[0].uri,
            remedy="Bring the images back to where they were ingested from",
        )
    kept = set(used.sample_ids)
    readable = [sample_id in kept for sample_id in plan.training_set.sample_ids]
    return images[readable], used, unread
