"""What ONNX Runtime would tell its makers stays here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.inference.graphs import write_model

PROGRAM = """
import sys
import numpy as np
from visionloop.inference import OnnxModel
OnnxModel.load(sys.argv[1]).predict(np.zeros((1, 3, 8, 8), dtype=np.float32))
"""


def test_a_model_leaves_no_device_id_and_no_events(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    write_model(tmp_path / "model")
    # Without CI=true, which suppresses it too; were it sent, it would reach no further than here.
    environment = {"HOME": str(home), "TMPDIR": str(home), "PATH": "/usr/bin:/bin"}
    environment |= dict.fromkeys(("HTTPS_PROXY", "https_proxy"), "http://127.0.0.1:9")
    subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "model")], env=environment, check=True
    )
    assert sorted(home.rglob("*")) == []
