"""What the predictor is compared with: a stock KServe model, and a loop without any server.

Both prepare a picture as a person would write it with Pillow; the pixels are those of
`visionloop.inference.to_input`.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIZE = 224
Floats = NDArray[np.float32]


def session(path: str, threads: int = 0) -> Any:
    """Start ONNX Runtime on all processors, or with so many threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that spin between runs take the processors of everything else.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def by_pillow(data: bytes) -> Floats:
    """Decode and reduce one picture, float32 [3, 224, 224]."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    small = image.resize(
        (SIZE, SIZE), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side)
    )
    return np.asarray(small, np.float32).transpose(2, 0, 1) / np.float32(255)


def serve_stock(path: str, port: int, workers: int) -> None:
    """Serve with `kserve.Model`; without its access log."""
    sys.argv = sys.argv[:1]  # kserve parses the command line when it is imported
    import kserve

    from benchmarks._stock_model import Stock

    threads = max(1, len(os.sched_getaffinity(0)) // workers) if workers > 1 else 0
    kserve.ModelServer(
        http_port=port, workers=workers, enable_grpc=False, enable_latency_logging=False,
        access_log_format=None,
    ).start([Stock(path, threads)])  # fmt: skip


def bare_loop(path: str, files: list[bytes], seconds: float) -> float:
    """Return the pictures a second of a loop that decodes as the predictor does, and predicts.

    Two forms, and the better of them: as many threads as processors, each with one picture at a
    time and one thread of ONNX Runtime; and batches of eight, decoded in threads, on all of them.
    """
    from visionloop.inference.preprocessing import picture_to_input
    from visionloop.media.decode import decode_upright

    processors = len(os.sched_getaffinity(0))

    def prepared(data: bytes) -> Floats:
        return picture_to_input(decode_upright(data), SIZE)

    def alone() -> float:
        single = session(path, 1)
        counts = [0] * processors
        end = time.perf_counter() + seconds / 2

        def work(n: int) -> None:
            while time.perf_counter() < end:
                data = files[(counts[n] * processors + n) % len(files)]
                single.run(None, {"image": prepared(data)[None]})
                counts[n] += 1

        threads = [threading.Thread(target=work, args=(n,)) for n in range(processors)]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(counts) / (time.perf_counter() - began)

    def batches() -> float:
        whole = session(path)
        count, began = 0, time.perf_counter()
        with ThreadPoolExecutor(processors) as pool:
            while time.perf_counter() - began < seconds / 2:
                some = [files[(count + n) % len(files)] for n in range(8)]
                whole.run(None, {"image": np.stack(list(pool.map(prepared, some)))})
                count += 8
        return count / (time.perf_counter() - began)

    return max(alone(), batches())


if __name__ == "__main__":
    if sys.argv[1] == "stock":
        serve_stock(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        print(json.dumps(bare_loop(*pickle.load(sys.stdin.buffer))))
