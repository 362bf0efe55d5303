"""What ONNX Runtime and OpenVINO would tell their makers stays here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.inference.graphs import write_model

PROGRAM = """
import sys
import numpy as np
from visionloop.config import InferenceConfig
from visionloop.inference import OnnxModel
from visionloop.inference.classifier import Classifier
classifier = Classifier(OnnxModel.load(sys.argv[1]), InferenceConfig())
classifier.predict(np.zeros((1, 8, 8, 3), dtype=np.uint8))
print(classifier.ran_on)
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
