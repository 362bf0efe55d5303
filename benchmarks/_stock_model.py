"""A model as KServe's documentation shows it, in a module that its worker processes can import."""

from __future__ import annotations

import base64
from typing import Any

import kserve
import numpy as np
from kserve import InferOutput, InferRequest, InferResponse

from benchmarks._serving_peers import SIZE, by_pillow, session


class Stock(kserve.Model):  # type: ignore[misc]
    """ONNX Runtime behind `kserve.Model`.

    Args:
        path: The network.
        threads: Of ONNX Runtime, in each process; 0 for all processors.
    """

    def __init__(self, path: str, threads: int) -> None:
        super().__init__("clf")
        self.path, self.threads = path, threads
        self.load()

    def load(self) -> bool:
        """Start the session and run it once."""
        self.session = session(self.path, self.threads)
        self.session.run(None, {"image": np.zeros((1, 3, SIZE, SIZE), np.float32)})
        self.ready = True
        return True

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the session: each worker starts its own."""
        return {name: value for name, value in self.__dict__.items() if name != "session"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Start a worker's session."""
        self.__dict__.update(state)
        self.load()

    def preprocess(self, payload: Any, headers: Any = None) -> Any:
        """Return the id of a V2 request, and the batch."""
        if isinstance(payload, InferRequest):
            return payload.id, payload.inputs[0].as_numpy()
        if isinstance(payload, bytes):
            return None, by_pillow(payload)[None]
        files = [base64.b64decode(one["b64"]) for one in payload["instances"]]
        return None, np.stack([by_pillow(data) for data in files])

    def predict(self, payload: Any, headers: Any = None) -> Any:
        """Run the network."""
        request_id, batch = payload
        probabilities, _ = self.session.run(None, {"image": batch})
        if request_id is None:
            return {"predictions": probabilities.tolist()}
        output = InferOutput("probabilities", list(probabilities.shape), "FP32")
        output.set_data_from_numpy(probabilities, binary_data=True)
        return InferResponse(request_id, "clf", [output])
