"""A model as NVIDIA Triton reads it: a model repository beside the bundle.

    <bundle>/triton-<name>/<name>/config.pbtxt
    <bundle>/triton-<name>/<name>/1/model.onnx

KServe's `storageUri` is the repository, the parent of the model's folder. The folder's name is the
model's in the paths of requests. The graph is the bundle's own: float32 ``image`` [n, 3, S, S] in,
``probabilities`` [n, C] and ``embedding`` [n, D] out; whoever asks resizes and scales.
"""

from __future__ import annotations

import json

from visionloop.inference.model import MODEL_FILE, ModelCard, check_digest, load_card, read_file

MAX_BATCH = 64


def repository_uri(bundle_uri: str, name: str) -> str:
    """Return where the repository of a model lies.

    Args:
        bundle_uri: The serving bundle.
        name: Name of the endpoint.
    """
    return f"{bundle_uri.rstrip('/')}/triton-{name}"


def export_repository(bundle_uri: str, name: str) -> str:
    """Write a bundle's model repository, unless it is there.

    Args:
        bundle_uri: The serving bundle.
        name: Name of the endpoint, which the model gets.

    Returns:
        The repository.

    Raises:
        InputError: The bundle is not whole.
    """
    from visionloop.lake.storage import open_storage

    root = repository_uri(bundle_uri, name)
    storage = open_storage(root)
    card = load_card(bundle_uri)
    config = f"{root}/{name}/config.pbtxt"
    text = model_config(card, name).encode()
    if not storage.exists(config) or storage.read(config) != text:
        onnx = read_file(bundle_uri, MODEL_FILE)
        check_digest(card, MODEL_FILE, onnx, where=bundle_uri)
        storage.write(f"{root}/{name}/1/{MODEL_FILE}", onnx)
        # Last: a repository that has it is whole.
        storage.write(config, text)
    return root


def model_config(card: ModelCard, name: str) -> str:
    """Return the text of `config.pbtxt`.

    Args:
        card: The model's card.
        name: Name of the model at the endpoint.
    """
    size = card.image_size
    told = {"model_id": card.model_id, "classes": json.dumps(card.classes)}
    return "\n".join(
        [
            f"name: {json.dumps(name)}",
            'backend: "onnxruntime"',
            f"max_batch_size: {MAX_BATCH}",
            f'input [ {{ name: "image", data_type: TYPE_FP32, dims: [ 3, {size}, {size} ] }} ]',
            "output [",
            f'  {{ name: "probabilities", data_type: TYPE_FP32, dims: [ {len(card.classes)} ] }},',
            f'  {{ name: "embedding", data_type: TYPE_FP32, dims: [ {card.embedding_dim} ] }}',
            "]",
            "dynamic_batching { }",
            *(
                f'parameters {{ key: "{key}" value {{ string_value: {json.dumps(value)} }} }}'
                for key, value in told.items()
            ),
            "",
        ]
    )
