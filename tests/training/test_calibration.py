from __future__ import annotations

import numpy as np

from visionloop.training.calibration import MIN_LABELS, fit_temperature, held_out_rows
from visionloop.training.reliability import calibration_error


def drawn(temperature: float, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return logits whose labels were drawn from softmax(logits / temperature)."""
    rng = np.random.Generator(np.random.PCG64(0))
    logits = rng.standard_normal((n, 5)) * 3
    p = np.exp(logits / temperature)
    p /= p.sum(axis=1, keepdims=True)
    labels = (p.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    return logits.astype(np.float32), labels.astype(np.int64)


def test_the_temperature_that_made_the_labels_is_found() -> None:
    for temperature in (0.5, 1.0, 3.0):
        logits, labels = drawn(temperature, 4000)
        assert abs(fit_temperature(logits, labels) / temperature - 1) < 0.08


def test_calibration_makes_the_error_small() -> None:
    logits, labels = drawn(3.0, 4000)

    def error(temperature: float) -> float:
        p = np.exp(logits / temperature)
        p /= p.sum(axis=1, keepdims=True)
        return calibration_error(p.max(axis=1).astype(np.float32), p.argmax(axis=1) == labels)

    assert error(1.0) > 0.15
    assert error(fit_temperature(logits, labels)) < 0.03


def test_a_few_right_answers_do_not_make_it_certain() -> None:
    logits = np.eye(3, dtype=np.float32)[np.arange(10) % 3] * 4
    assert fit_temperature(logits, np.arange(10) % 3) > 0.3
    assert fit_temperature(np.zeros((0, 3), np.float32), np.zeros(0, np.int64)) == 1.0


def test_no_class_loses_all_its_labels_to_calibration() -> None:
    labels = np.array([0] * 80 + [1] * 3 + [2] * 17)
    rows = held_out_rows(labels, seed=0)
    assert np.bincount(labels[rows], minlength=3).tolist() == [16, 0, 3]
    assert np.array_equal(rows, held_out_rows(labels, seed=0))
    assert not np.array_equal(rows, held_out_rows(labels, seed=1))


def test_a_small_set_keeps_every_label_for_training() -> None:
    assert len(held_out_rows(np.zeros(MIN_LABELS - 1, np.int64), seed=0)) == 0
