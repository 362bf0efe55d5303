"""The forms that Kubernetes and registries ask of values, checked when a value is read.

A cluster refuses a malformed name, image or quantity only when a pod is made of it, and a pod
that asks for a resource that no node can have waits for ever. Each form says what to write.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler


@dataclass(frozen=True)
class Form:
    """What a text must look like; as an annotation it checks a field and is in its JSON Schema.

    Attributes:
        pattern: Regular expression of the whole text, one that JavaScript reads too.
        words: What to write, for a person: ``write …, for example …``.
    """

    pattern: str
    words: str

    def check(self, text: str) -> str:
        """Return a text of this form.

        Raises:
            ValueError: It is not; the error says what to write.
        """
        if not re.fullmatch(self.pattern, text):
            raise ValueError(self.words)
        return text

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        """Check the field after its type."""
        return AfterValidator(self.check).__get_pydantic_core_schema__(source, handler)

    def __get_pydantic_json_schema__(
        self, schema: Any, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Name the pattern to editors."""
        return {**handler(schema), "pattern": self.pattern}


_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_HOST = r"([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*"
_PATH = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
# A name in the key of a label, a taint or a resource.
_PART = r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
_WORD = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?"

LABEL = Form(
    rf"^({_LABEL})?$",
    "write lower-case letters, digits and -, at most 63 characters, a letter or digit first and "
    "last, for example team-a",
)
IMAGE = Form(
    rf"^(({_HOST}(:[0-9]+)?/)?{_PATH}(/{_PATH})*"
    r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@[A-Za-z][A-Za-z0-9]*:[0-9a-fA-F]{32,})?)?$",
    "write an image as registry/name:tag or registry/name@sha256:…, its name in lower-case "
    "letters, without http://, for example ghcr.io/visionloop/visionloop:0.1.0",
)
# KServe builds `<name>-m0001-0123456789-predictor` of it, one label of DNS (63 characters).
INFERENCE_SERVICE = Form(
    r"^[a-z]([a-z0-9-]{0,34}[a-z0-9])?$",
    "small letters, digits and hyphens, a letter first, at most 36 characters",
)

Label = Annotated[str, LABEL]
Name = Annotated[
    str,
    Form(
        r"^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?)?$",
        "write lower-case letters, digits, - and ., a letter or digit first and last, for example "
        "visionloop-runner",
    ),
]
Cpu = Annotated[
    str,
    Form(r"^([0-9]+m|[0-9]+(\.[0-9]+)?)$", "write cores as Kubernetes does, for example 2 or 500m"),
]
Memory = Annotated[
    str,
    Form(
        r"^[0-9]+(\.[0-9]+)?([KMGTPE]i|[kMGTPE])?$",
        "write bytes as Kubernetes does, for example 4Gi or 500M",
    ),
]
Quantity = Annotated[
    str,
    Form(
        r"^[0-9]+(\.[0-9]+)?(m|[kMGTPE]|[KMGTPE]i)?$",
        "write an amount as Kubernetes does, for example 500m or 2 cores, 4Gi or 500M of memory",
    ),
]
Image = Annotated[str, IMAGE]
AcceleratorType = Annotated[
    str,
    Form(
        rf"^(?!.*kubernetes\.io/)({_WORD}(\.{_WORD})+/{_PART})?$",
        "write the resource that a node offers, domain/name, for example nvidia.com/gpu; the kind "
        "of GPU goes into node_selector",
    ),
]
StorageUri = Annotated[
    str,
    Form(r"^((file|gs)://.*|(?!.*://).*)$", "use a path, file://… or gs://…"),
]

_TOLERATION = ("key", "operator", "value", "effect", "tolerationSeconds")
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_KEY = re.compile(rf"({_WORD}(\.{_WORD})*/)?{_PART}")


def _toleration(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a toleration that Kubernetes takes; an empty field is one that is left out."""
    for name in given:
        if name not in _TOLERATION:
            raise ValueError(f"`{name}` is no field of a toleration: {', '.join(_TOLERATION)}")
    for name in _TOLERATION[:-1]:
        if not isinstance(given.get(name, ""), str):
            raise ValueError(f"`{name}` is {given[name]!r}, and must be text: put it into quotes")
    key, value = given.get("key", ""), given.get("value", "")
    operator, effect = given.get("operator") or "Equal", given.get("effect", "")
    if operator not in ("Exists", "Equal"):
        raise ValueError(f"`operator` is Exists or Equal, not {operator!r}")
    if effect and effect not in _EFFECTS:
        raise ValueError(f"`effect` is one of {', '.join(_EFFECTS)}, not {effect!r}")
    if not key and operator == "Equal":
        raise ValueError("name the taint's `key`; only `operator: Exists` does without one")
    if key and not _KEY.fullmatch(key):
        raise ValueError(f"`key` {key!r} is no taint's key: write for example nvidia.com/gpu")
    if operator == "Exists" and value:
        raise ValueError("`operator: Exists` takes no `value`: leave one of the two out")
    if value and not re.fullmatch(_PART, value):
        raise ValueError(
            f"`value` {value!r} is no taint's value: letters, digits, -, _ and ., at most 63"
        )
    seconds = given.get("tolerationSeconds")
    if seconds is not None:
        if isinstance(seconds, bool) or not isinstance(seconds, int):
            raise ValueError(f"`tolerationSeconds` is a whole number, not {seconds!r}")
        if effect != "NoExecute":
            raise ValueError("`tolerationSeconds` needs `effect: NoExecute`")
    return given


Toleration = Annotated[
    dict[str, Any],
    AfterValidator(_toleration),
    Field(
        json_schema_extra={
            "additionalProperties": False,
            "properties": {
                "key": {"type": "string"},
                "operator": {"enum": ["Exists", "Equal"], "type": "string"},
                "value": {"type": "string"},
                "effect": {"enum": list(_EFFECTS), "type": "string"},
                "tolerationSeconds": {"type": "integer"},
            },
        }
    ),
]

# A pod cannot do without what it has at these places: no mount may lie at, above or below them.
# /gcs, /s3, /minio are where Kubeflow Pipelines mounts artifacts.
_SYSTEM = (
    *("/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/proc", "/run", "/sbin", "/sys", "/usr"),
    *("/var/run", "/opt/visionloop", "/gcs", "/s3", "/minio", "/kfp-launcher", "/argo"),
)
# Below /tmp a mount hides nothing.
_HIDDEN = (*_SYSTEM, "/tmp")


def _mountable(volume: str) -> str:
    """Return a volume whose mount hides nothing that a pod needs."""
    text = volume.partition(":")[2]
    path = PurePosixPath("/" + text.lstrip("/"))
    if ".." in path.parts:
        raise ValueError("name the path of the mount without ..")
    hidden = [place for place in _HIDDEN if PurePosixPath(place).is_relative_to(path)]
    inside = [place for place in _SYSTEM if path.is_relative_to(place)]
    if text and (hidden or inside):
        place = (hidden or inside)[0]
        raise ValueError(
            f"a volume at {text} would hide {place}, which every pod needs: mount it at a place of "
            "its own, for example /mnt/visionloop"
        )
    return volume


Volume = Annotated[
    str,
    Form(
        r"^([a-z0-9]([a-z0-9.-]*[a-z0-9])?(:/[^:]*[^/:])?)?$",
        "write claim or claim:/mount/path, the claim in lower-case letters, digits, - and ., the "
        "path absolute and not / itself, for example visionloop-lake:/mnt/visionloop",
    ),
    AfterValidator(_mountable),
]
