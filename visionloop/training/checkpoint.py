"""Checkpoints in the lake: from one of them a training goes on to the same bytes.

A checkpoint is one object that is replaced whole, so there is always the last one or the one
before. Its header names what it belongs to and the hash of what follows; one that is torn, or of
another training, is told and ignored.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from visionloop.progress import log

if TYPE_CHECKING:
    from visionloop.lake.storage import Storage

_MAGIC = b"visionloop checkpoint 1\n"


@dataclass(frozen=True)
class Checkpoints:
    """Where the checkpoints of one training go.

    Attributes:
        storage: The lake's storage.
        uri: The object that holds the newest one.
        identity: What the training's bytes depend on: rows, parameters, the number of processes,
            the kind of device, PyTorch's version. A checkpoint of anything else is not taken up.
        every: Optimiser steps between two checkpoints.
    """

    storage: Storage
    uri: str
    identity: str
    every: int

    def save(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint.

        Args:
            state: Tensors, numbers, texts, and lists and dicts of them; under ``step`` how many
                optimiser steps are done.

        Raises:
            StorageError: It cannot be written; the one before is still there.
        """
        import torch

        buffer = io.BytesIO()
        torch.save(state, buffer)
        self.storage.write(self.uri, _sealed(buffer.getvalue(), self.identity, state["step"]))

    def read(self) -> bytes | None:
        """Return the content of the checkpoint, None where there is none that can be used."""
        if not self.storage.exists(self.uri):
            return None
        content, why = _opened(self.storage.read(self.uri), self.identity)
        if why:
            log(f"train: begins anew: the checkpoint {self.uri} {why}")
        return content


def state_of(content: bytes) -> dict[str, Any]:
    """Return what `Checkpoints.save` was given, its tensors on the CPU; no code is unpickled.

    Args:
        content: What `Checkpoints.read` returned.
    """
    import torch

    state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return state


def identity_of(*parts: Any) -> str:
    """Return the SHA-256 of what a training's bytes depend on, in hex.

    Args:
        *parts: Plain values.
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _sealed(content: bytes, identity: str, step: int) -> bytes:
    header = {
        "identity": identity,
        "step": step,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    return _MAGIC + json.dumps(header).encode() + b"\n" + content


def _opened(data: bytes, identity: str) -> tuple[bytes | None, str]:
    """Return the content of a checkpoint, or why it cannot be used."""
    if not data.startswith(_MAGIC):
        return None, "is none of this version of visionloop"
    line, _, content = data[len(_MAGIC) :].partition(b"\n")
    try:
        header = json.loads(line)
        if hashlib.sha256(content).hexdigest() != header["sha256"]:
            return None, "is torn: its bytes are not those that were written"
        if header["identity"] != identity:
            return None, (
                "is of another training: other images, labels or parameters, another number of "
                "processes, another kind of device or version of PyTorch"
            )
    except (ValueError, KeyError, TypeError):
        return None, "is torn: its header cannot be read"
    return content, ""
