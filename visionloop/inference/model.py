"""A trained model as the loop uses it: an ONNX file beside its card, in a folder or a bucket."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from visionloop.errors import InputError, VisionloopError
from visionloop.inference.preprocessing import PREPROCESSING
from visionloop.inference.session import run_session, start_session

FORMAT_VERSION = 1
_HELD_TWICE_BYTES = 200_000_000
MODEL_FILE = "model.onnx"
CARD_FILE = "card.json"
STATE_FILE = "state.pt"
REFERENCE_FILE = "reference.npz"


class ModelCard(BaseModel):
    """What a person or a program needs to know to use a model rightly."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())

    format_version: int = FORMAT_VERSION
    model_id: str
    architecture: str
    classes: list[str] = Field(description="in the order of the columns of `probabilities`")
    image_size: int
    preprocessing: str = PREPROCESSING
    embedding_space: str
    embedding_dim: int
    temperature: float = 1.0
    opset: int = 0
    training: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    created_at: str = ""
    files: dict[str, str] = Field(default={}, description="SHA-256 of each file of the bundle")

    def to_json(self) -> str:
        """Return the card as the text of `card.json`, keys in the order of the fields."""
        return json.dumps(self.model_dump(), indent=2, ensure_ascii=False) + "\n"


class OnnxModel:
    """A model bundle, ready to predict on ONNX Runtime.

    Instances are safe to use from several threads.

    Attributes:
        card: The model's card.
        uri: Where the bundle was loaded from.
    """

    def __init__(
        self,
        onnx: bytes,
        card: ModelCard,
        *,
        uri: str = "",
        threads: int = 0,
        providers: Sequence[str] = (),
        threads_alone: int = 0,
    ) -> None:
        """Start a session.

        Args:
            onnx: The bytes of `model.onnx`.
            card: The card that goes with them.
            uri: Where they came from, for messages.
            threads: Threads of one prediction; 0 leaves the choice to ONNX Runtime.
            providers: ONNX Runtime's execution providers by name; by default the machine's device.
            threads_alone: Threads of a prediction that nothing else goes on beside, in a session
                of its own; 0 for none. A network over 200 MB gets none: both hold its weights.

        Raises:
            InputError: The bytes are no ONNX model, or lack the inputs and outputs of a bundle; or
                a provider is not in this build.
            VisionloopError: There is a GPU, and ONNX Runtime cannot use it.
        """
        self.card = card
        self.uri = uri
        self._session = start_session(onnx, where=uri, threads=threads, providers=providers)
        self._session_alone = self._session
        if threads_alone and len(onnx) <= _HELD_TWICE_BYTES:
            self._session_alone = start_session(
                onnx, where=uri, threads=threads_alone, providers=providers
            )
        outputs = {output.name for output in self._session.get_outputs()}
        inputs = [entry.name for entry in self._session.get_inputs()]
        if inputs != ["image"] or not {"probabilities", "embedding"} <= outputs:
            raise InputError(
                f"the ONNX model takes {inputs} and gives {sorted(outputs)}; a bundle takes "
                "'image' and gives 'probabilities' and 'embedding'",
                where=uri,
                remedy="Use a folder that visionloop's train or export stage wrote",
            )

    @classmethod
    def load(
        cls,
        uri_or_dir: str | Path,
        *,
        threads: int = 0,
        providers: Sequence[str] = (),
        threads_alone: int = 0,
    ) -> OnnxModel:
        """Load a bundle from a folder, `file://` or `gs://`, and check that it is whole.

        Args:
            uri_or_dir: Where it lies.
            threads: Threads of one prediction; 0 leaves the choice to ONNX Runtime.
            providers: ONNX Runtime's execution providers by name; by default the machine's device.
            threads_alone: Threads of a prediction that nothing else goes on beside; 0 for as many.

        Raises:
            InputError: There is no bundle there, or a file is not the one that the card names.
        """
        uri = str(uri_or_dir).rstrip("/")
        card = load_card(uri)
        if card.format_version > FORMAT_VERSION:
            raise InputError(
                f"the model bundle has format {card.format_version}, this visionloop knows "
                f"{FORMAT_VERSION}",
                where=uri,
                remedy="Upgrade visionloop here to the version that made the model",
            )
        onnx = read_file(uri, MODEL_FILE)
        check_digest(card, MODEL_FILE, onnx, where=uri)
        return cls(
            onnx,
            card,
            uri=uri,
            threads=threads,
            providers=providers,
            threads_alone=threads_alone,
        )

    @property
    def provider(self) -> str:
        """ONNX Runtime's execution provider that is asked first."""
        return str(self._session.get_providers()[0])

    def predict(
        self, images: NDArray[np.float32], *, batch_size: int = 64, alone: bool = False
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Predict class probabilities and embeddings.

        Args:
            images: float32 [n, 3, image_size, image_size] as `to_input` makes them; n may be 0.
            batch_size: Images that go through the network at once.
            alone: Whether nothing else goes on beside: the threads are those for that.

        Returns:
            Probabilities float32 [n, C] in the order of `card.classes`, each row summing to 1, and
            embeddings float32 [n, D], L2-normalised.

        Raises:
            InputError: The array has another shape or type.
            VisionloopError: The network answered NaN or infinity, or the GPU failed.
        """
        size = self.card.image_size
        if images.dtype != np.float32 or images.shape[1:] != (3, size, size):
            raise InputError(
                f"the model takes float32 [n, 3, {size}, {size}], not {images.dtype} "
                f"{list(images.shape)}",
                where=self.uri,
                remedy="Make the array with visionloop.inference.preprocessing.to_input",
            )
        n = len(images)
        probabilities = np.empty((n, len(self.card.classes)), dtype=np.float32)
        embedding = np.empty((n, self.card.embedding_dim), dtype=np.float32)
        for start in range(0, n, batch_size):
            rows = slice(start, start + batch_size)
            probabilities[rows], embedding[rows] = run_session(
                self._session_alone if alone else self._session,
                ["probabilities", "embedding"],
                {"image": images[rows]},
                where=self.uri,
            )
        if not (np.isfinite(probabilities).all() and np.isfinite(embedding).all()):
            raise VisionloopError(
                f"model {self.card.model_id} answered a number that is not finite",
                where=self.uri,
                remedy="Train it again with a smaller learning rate",
            )
        return probabilities, embedding


def load_card(uri: str) -> ModelCard:
    """Read and check a bundle's card.

    Raises:
        InputError: There is none, or it is not a card.
    """
    text = read_file(uri, CARD_FILE)
    try:
        return ModelCard.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise InputError(
            f"{CARD_FILE} is not a model card: {field}: {first['msg']}",
            where=uri,
            remedy="Use a folder that visionloop's train or export stage wrote",
        ) from error


def check_digest(card: ModelCard, name: str, data: bytes, *, where: str) -> None:
    """Raise InputError unless `data` are the bytes of file `name` that the card vouches for.

    Args:
        card: The model's card.
        name: Name of the file in the bundle.
        data: Bytes of the file.
        where: Where they came from, for the error.

    Raises:
        InputError: They are not.
    """
    expected = card.files.get(name)
    if expected is None:
        raise InputError(
            f"{CARD_FILE} vouches for no file {name}",
            where=where,
            remedy="Use a folder that visionloop's train or export stage wrote",
        )
    if hashlib.sha256(data).hexdigest() != expected:
        raise InputError(
            f"{name} is not the file that {CARD_FILE} vouches for (its SHA-256 differs)",
            where=where,
            remedy="Copy the model again, or run export again",
        )


def read_file(uri: str, name: str) -> bytes:
    """Read one file of a bundle at a path, `file://` or `gs://`.

    Raises:
        InputError: The bundle has no such file.
    """
    where = f"{uri.rstrip('/')}/{name}"
    missing = InputError(
        f"there is no model bundle here: {name} is missing",
        where=where,
        remedy="Name the folder that holds model.onnx and card.json",
    )
    if "://" not in where:
        try:
            return Path(where).read_bytes()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise missing from error
    from visionloop.lake.storage import open_storage

    storage = open_storage(where)
    if not storage.exists(where):
        raise missing
    return bytes(storage.read(where))
