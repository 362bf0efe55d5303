"""What Knative's webhook refuses is told with the flag that allows it."""

from __future__ import annotations

import pytest

from visionloop.serving.inference_service.trouble import flags_for


@pytest.mark.parametrize(
    ("message", "flag"),
    [
        (
            'admission webhook "validation.webhook.serving.knative.dev" denied the request: '
            "validation failed: must not set the field(s): spec.template.spec.nodeSelector",
            "kubernetes.podspec-nodeselector",
        ),
        (
            "must not set the field(s): spec.template.spec.tolerations",
            "kubernetes.podspec-tolerations",
        ),
        (
            "must not set the field(s): spec.template.spec.volumes[0].persistentVolumeClaim",
            "kubernetes.podspec-persistent-volume-claim",
        ),
        ("exceeded quota: gpus", ""),
    ],
)
def test_a_refused_field_names_the_flag(message: str, flag: str) -> None:
    told = flags_for(message)
    assert flag in told and bool(told) is bool(flag)
