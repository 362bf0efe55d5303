"""Whether an inference can be linked to its sample by the embedding in its reply.

    python -m benchmarks.harvest_links

Half of the photographs are a lake. It is asked about each of them encoded anew and reduced, about
the other half, and about each of its own with that one left out of the lake: near neighbours that
nothing may be linked to. The embeddings are those of a small network that is trained on the spot.
"""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks._photographs import paths
from visionloop.serving import embedding_links

Floats = NDArray[np.float32]
SIDE, EPOCHS = 96, 3
# Name: JPEG quality, and the scale of each side.
CHANGES = {"quality 90": (90, 1.0), "quality 50": (50, 1.0), "half the side": (90, 0.5),
           "a quarter of the side": (85, 0.25)}  # fmt: skip


def encoded(picture: Image.Image, quality: int, scale: float) -> Image.Image:
    """Return a picture as it comes back from a client that reduced it and wrote a JPEG."""
    size = (max(8, int(picture.width * scale)), max(8, int(picture.height * scale)))
    data = io.BytesIO()
    picture.resize(size, Image.Resampling.LANCZOS).save(data, "JPEG", quality=quality)
    return Image.open(data).convert("RGB")


def as_input(picture: Image.Image) -> Floats:
    """Return float32 [3, side, side]."""
    small = picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return (np.asarray(small, np.float32).transpose(2, 0, 1) / 255 - 0.45) / 0.225


def trained(x: Floats, y: NDArray[np.int64]) -> Any:
    """Train a resnet18 from nothing and return what gives embeddings."""
    import torch
    import torchvision

    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    network = torchvision.models.resnet18(num_classes=int(y.max()) + 1)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    for _ in range(EPOCHS):
        for rows in np.array_split(rng.permutation(len(x)), len(x) // 32):
            loss = torch.nn.functional.cross_entropy(
                network(torch.tensor(x[rows])), torch.tensor(y[rows])
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    network.fc = torch.nn.Identity()
    network.eval()

    def embed(images: Floats) -> Floats:
        with torch.no_grad():
            parts = [network(torch.tensor(images[i : i + 64])) for i in range(0, len(images), 64)]
        return torch.cat(parts).numpy()

    return embed


def measure(kind: str) -> None:
    """Print the shares that are linked, rightly and wrongly."""
    pictures = []
    for path in paths(kind):
        picture = Image.open(path).convert("RGB")
        picture.thumbnail((512, 512))
        pictures.append(picture)
    folders = sorted({path.parent.name for path in paths(kind)})
    y = np.array([folders.index(path.parent.name) for path in paths(kind)])
    if len(folders) < 2:  # no classes: something to learn all the same
        y = np.digitize([np.asarray(one).mean() for one in pictures], range(0, 256, 8))
        y = np.unique(y, return_inverse=True)[1]
    x = np.stack([as_input(one) for one in pictures])
    embed = trained(x, y)
    mixed = np.random.default_rng(1).permutation(len(x))
    inside, outside = mixed[: len(x) // 2], mixed[len(x) // 2 :]
    ids = [str(n) for n in inside]
    held = embed(x[inside])
    print(f"\n{kind}: {len(inside)} samples in the lake")
    for name, (quality, scale) in CHANGES.items():
        asked = np.stack([as_input(encoded(pictures[n], quality, scale)) for n in inside])
        found = embedding_links.nearest_samples(embed(asked), [(ids, held)])
        right = sum(a == b for a, b in zip(found, ids, strict=True))
        wrong = sum(a is not None for a in found) - right
        print(f"  {name:24} linked {right / len(ids):6.1%}  to another sample {wrong}")
    strangers = embedding_links.nearest_samples(embed(x[outside]), [(ids, held)])
    alone = []
    for n in range(len(ids)):
        rest = ([*ids[:n], *ids[n + 1 :]], np.delete(held, n, 0))
        alone += embedding_links.nearest_samples(held[n : n + 1], [rest])
    for name, links in (("not in the lake", strangers), ("left out of the lake", alone)):
        print(f"  {name:24} linked {sum(a is not None for a in links)} of {len(links)}")


def main() -> None:
    """Run the benchmark."""
    if not paths("clothing"):
        sys.exit("no photographs: set VISIONLOOP_TEST_SHARED to a folder with data/clothing")
    print(
        f"linked below {embedding_links.MAX_DISTANCE} of cosine distance and below "
        f"{embedding_links.MAX_RATIO} of the second sample's"
    )
    for kind in ("clothing", "bccd"):
        measure(kind)


if __name__ == "__main__":
    main()
