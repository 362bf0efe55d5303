"""What stays from one model to the next: where an InferenceService is, and how it runs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from pathlib import PurePosixPath

from visionloop.errors import InputError
from visionloop.lake.storage import local_path, scheme_of
from visionloop.serving.config import KServeConfig
from visionloop.value_forms import INFERENCE_SERVICE

API_VERSION = "serving.kserve.io/v1beta1"
KIND = "InferenceService"
SERVICE_LABEL = "serving.kserve.io/inferenceservice"
REVISION_LABEL = "serving.knative.dev/revision"
MODE_ANNOTATION = "serving.kserve.io/deploymentMode"
# Where KServe's storage initializer puts what STORAGE_URI names.
MODEL_DIR = "/mnt/models"


class Mode(Enum):
    """How KServe rolls a new model out here."""

    KNATIVE = "Knative"
    STANDARD_CANARY = "Standard with spec.canary"
    STANDARD = "Standard"

    @property
    def deployment_mode(self) -> str:
        """The value of KServe's annotation."""
        return "Knative" if self is Mode.KNATIVE else "Standard"

    @property
    def splits(self) -> bool:
        """Whether a new model can run beside the current one."""
        return self is not Mode.STANDARD


@dataclass(frozen=True)
class Served:
    """A model and where its serving bundle lies."""

    model_id: str
    uri: str

    @property
    def name(self) -> str:
        """The model's name as a part of the names of Kubernetes' objects."""
        return re.sub(r"[^a-z0-9-]+", "-", self.model_id.lower()).strip("-")[:16].rstrip("-")


@dataclass(frozen=True)
class Endpoint:
    """An InferenceService.

    Attributes:
        name: Its name, the model's in the paths of requests too.
        namespace: Its namespace.
        loop: Name of the loop that publishes to it.
        settings: The section `serving.kserve`.
        claim: PersistentVolumeClaim with the lake; empty where it lies in a bucket.
        mount_path: Where that is mounted.
    """

    name: str
    namespace: str
    loop: str
    settings: KServeConfig
    claim: str = ""
    mount_path: str = ""

    def __post_init__(self) -> None:
        """Refuse a name that Kubernetes would.

        Raises:
            InputError: It would.
        """
        try:
            INFERENCE_SERVICE.check(self.name)
        except ValueError as error:
            raise InputError(
                f"an InferenceService cannot be called {self.name!r}: {error}",
                where="serving.endpoint",
                remedy="Set serving.endpoint to such a name",
            ) from None

    @property
    def where(self) -> str:
        """The InferenceService, as errors name it."""
        return f"InferenceService {self.namespace}/{self.name}"

    @property
    def triton(self) -> bool:
        """Whether NVIDIA Triton serves, and not our predictor."""
        return self.settings.runtime == "triton"

    def storage_uri(self, uri: str) -> str:
        """Return a folder of the lake as KServe's storage initializer names it.

        Args:
            uri: The folder, ``gs://…`` or ``file://…``.

        Raises:
            InputError: It lies on a disk that no pod has.
        """
        if scheme_of(uri) != "file":
            return uri
        return f"pvc://{self.claim}/{self.on_volume(uri)}"

    def on_volume(self, uri: str) -> str:
        """Return the path of a folder of a ``file://`` lake inside the volume.

        Args:
            uri: The folder.

        Raises:
            InputError: The lake is on a disk that no pod has.
        """
        path = PurePosixPath(str(local_path(uri)))
        if not self.claim or not path.is_relative_to(self.mount_path):
            named = (
                f"the volume {self.claim} is at {self.mount_path}" if self.claim else "no volume"
            )
            raise InputError(
                f"the predictor's pods cannot read the model: it lies on a disk, and {named}",
                where=uri,
                remedy="Put the lake into a bucket (gs://…), or on the volume that "
                "cluster.volume names as claim:/mount/path",
            )
        return str(path.relative_to(self.mount_path))
