"""The one place where environment variables are read and set.

Secrets (the catalog's password, Label Studio's token) reach a process only through these or through
a mounted file: never through YAML, a log or an artifact.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

# Where pods have the Secret `visionloop`, a file a key, see `visionloop.pipelines.placement`.
SECRET_FOLDER = "/var/run/secrets/visionloop"
CATALOG_SECRET = f"{SECRET_FOLDER}/catalog"
# The key of a bucket's service account, for clusters without Workload Identity.
BUCKET_KEY = "gcs.json"
# Where notifications go, and what they are signed with: a chat's address is a secret by itself.
# Headers of OpenTelemetry hold the key of whoever takes the traces.
_TELLING = ("VISIONLOOP_NOTIFY_", "OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS")
# The shortest value of a setting that is taken for a secret, and not for a number or a switch.
_SECRET_LENGTH = 8


def image() -> str:
    """Container image of the components, when it is overridden at compile time."""
    return os.environ.get("VISIONLOOP_IMAGE", "")


def catalog_uri() -> str:
    """Catalog of the lake, with its password: wins over the configuration's ``catalog``.

    It is the value of ``VISIONLOOP_CATALOG``, or stands in the file that
    ``VISIONLOOP_CATALOG_FILE`` names, or where a task's pod has its Secret mounted.

    Raises:
        InputError: The file cannot be read, or is empty.
    """
    uri = os.environ.get("VISIONLOOP_CATALOG", "")
    path = _catalog_file()
    if uri or not path:
        return uri
    from visionloop.errors import InputError

    remedy = (
        "Mount the Secret there, with the catalog's whole address in that key; another path is "
        "named by VISIONLOOP_CATALOG_FILE"
    )
    try:
        uri = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(
            f"the file with the catalog's address cannot be read: {why}",
            where=path,
            remedy=remedy,
        ) from None
    if not uri:
        raise InputError("the file with the catalog's address is empty", where=path, remedy=remedy)
    return uri


def take_mounted_secrets() -> None:
    """Set the variables that come with a pod's Secret; those that are set already stay.

    A key ``VISIONLOOP_…`` or ``OTEL_…`` is the variable of that name. The key ``gcs.json`` is the
    key file of a service account: ``GOOGLE_APPLICATION_CREDENTIALS`` names where it lies.
    """
    for name, path in _mounted().items():
        if name.startswith(("VISIONLOOP_", "OTEL_")):
            os.environ.setdefault(name, _content(path))
        elif name == BUCKET_KEY:
            os.environ.setdefault("GOOGLE_APPLICATION_CREDENTIALS", path)


def labelstudio_token() -> str:
    """Token for Label Studio: ``VISIONLOOP_LABELSTUDIO_TOKEN``, or the key of a pod's Secret."""
    given = os.environ.get("VISIONLOOP_LABELSTUDIO_TOKEN", "")
    return given or _content(_mounted().get("labelstudio_token", ""))


def media_keys() -> list[str]:
    """Keys that links to images are signed with, the newest first: ``VISIONLOOP_MEDIA_KEY``.

    Several stand one after the other, with spaces or lines between them.
    """
    return _given_or_mounted("VISIONLOOP_MEDIA_KEY").split()


def webhook_secret() -> str:
    """What a labelling tool has to show when it calls: ``VISIONLOOP_WEBHOOK_SECRET``."""
    return _given_or_mounted("VISIONLOOP_WEBHOOK_SECRET")


def notify_url(receiver: str) -> str:
    """Return the address of a receiver of notifications: ``VISIONLOOP_NOTIFY_URL_<NAME>``.

    Args:
        receiver: Its name in ``notify.to``; in the variable in capitals, with ``_`` for ``-``.
    """
    return _given_or_mounted(_of_receiver("URL", receiver))


def notify_token(receiver: str) -> str:
    """Return the bearer token of a receiver: ``VISIONLOOP_NOTIFY_TOKEN_<NAME>``."""
    return _given_or_mounted(_of_receiver("TOKEN", receiver))


def notify_secret(receiver: str) -> str:
    """Return the key that signs for a receiver: ``VISIONLOOP_NOTIFY_SECRET_<NAME>``."""
    return _given_or_mounted(_of_receiver("SECRET", receiver))


def _of_receiver(what: str, receiver: str) -> str:
    return f"VISIONLOOP_NOTIFY_{what}_{receiver.upper().replace('-', '_')}"


def secrets() -> list[str]:
    """What was given to this process and must never be told: the longest first."""
    catalog = os.environ.get("VISIONLOOP_CATALOG", "")
    mounted = _content(_catalog_file())
    found = {kfp_token(), _content(kfp_token_file()), *_cookie_values()}
    for uri in (catalog, mounted):
        user_and_password, at, _ = uri.partition("://")[2].rpartition("@")
        found.add(user_and_password.partition(":")[2] if at else "")
    found |= {labelstudio_token(), webhook_secret(), *media_keys()}
    found |= {value.strip() for name, value in os.environ.items() if name.startswith(_TELLING)}
    found |= _private_key(_mounted().get(BUCKET_KEY, ""))
    taken = (_content(path) for name, path in _mounted().items() if name.startswith("VISIONLOOP_"))
    found |= {value for value in taken if len(value) >= _SECRET_LENGTH}
    # In an address special characters are quoted; libraries tell of the plain ones.
    return sorted({*found, *map(unquote, found)} - {""}, key=len, reverse=True)


def _mounted() -> dict[str, str]:
    """Return the path of each key of the pod's Secret."""
    try:
        # Kubernetes swaps the whole folder through links that begin with a dot.
        names = [name for name in os.listdir(SECRET_FOLDER) if not name.startswith(".")]
    except OSError:
        return {}
    return {name: os.path.join(SECRET_FOLDER, name) for name in sorted(names)}


def _given_or_mounted(name: str) -> str:
    return os.environ.get(name, "").strip() or _content(_mounted().get(name, ""))


def _private_key(path: str) -> set[str]:
    try:
        held = json.loads(_content(path) or "{}")
    except ValueError:
        return set()
    return {str(held.get(name, "")) for name in ("private_key", "private_key_id")}


def _cookie_values() -> list[str]:
    return [part.partition("=")[2].strip() for part in kfp_cookie().split(";")]


def _catalog_file() -> str:
    named = os.environ.get("VISIONLOOP_CATALOG_FILE", "")
    return named or (CATALOG_SECRET if os.path.exists(CATALOG_SECRET) else "")


def _content(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip() if path else ""
    except (OSError, UnicodeDecodeError):
        return ""


def storage_emulator() -> str:
    """Address of a Cloud Storage emulator, as google-cloud-storage reads it."""
    return os.environ.get("STORAGE_EMULATOR_HOST", "")


def docker_config() -> str:
    """Folder of Docker's configuration, which holds logins to registries."""
    return os.environ.get("DOCKER_CONFIG", "") or "~/.docker"


def google_apis() -> str:
    """Address that stands for Google's APIs of sign-in and storage; empty takes Google's own."""
    return os.environ.get("VISIONLOOP_GOOGLE_APIS", "").rstrip("/")


def storage_timeout() -> float:
    """Seconds for which a bucket that does not answer is asked again."""
    given = os.environ.get("VISIONLOOP_STORAGE_TIMEOUT", "")
    return float(given) if given.replace(".", "", 1).isdigit() else 120.0


def port_file() -> str:
    """File in which a server says where it listens; our images set it for their health check."""
    return os.environ.get("VISIONLOOP_PORT_FILE", "")


def report_token_file() -> str:
    """File of the tokens that readers of the live view have to know, one a line."""
    return os.environ.get("VISIONLOOP_REPORT_TOKEN_FILE", "")


def progress_file() -> str:
    """File that a task appends its progress to, set by the runner that started it."""
    return os.environ.get("VISIONLOOP_PROGRESS_FILE", "")


def error_file() -> str:
    """File that a failing task writes its error to, set by the runner that started it."""
    return os.environ.get("VISIONLOOP_ERROR_FILE", "")


def timings_file() -> str:
    """File that a task appends its timings to, set by a benchmark."""
    return os.environ.get("VISIONLOOP_TIMINGS_FILE", "")


def state_folder() -> str:
    """Folder of what a command keeps until it is finished, by the XDG Base Directory standard."""
    base = os.environ.get("XDG_STATE_HOME", "")
    home = base if os.path.isabs(base) else os.path.expanduser("~/.local/state")
    return os.path.join(home, "visionloop")


def runner_pid() -> int:
    """Process of the local runner that a task belongs to; 0 on a cluster."""
    return int(os.environ.get("VISIONLOOP_RUNNER_PID", "0") or 0)


def in_task() -> bool:
    """Whether this process is a pipeline's task and nothing else."""
    return os.environ.get("_KFP_RUNTIME", "") == "true"


def json_logs() -> bool:
    """Whether log lines are JSON objects: ``VISIONLOOP_LOG=json``."""
    return os.environ.get("VISIONLOOP_LOG", "").strip().lower() == "json"


def sends_traces() -> bool:
    """Whether OpenTelemetry's own variables name a collector, and do not switch traces off."""
    named = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or os.environ.get(
        "OTEL_EXPORTER_OTLP_ENDPOINT"
    )
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    return bool(named) and not disabled and os.environ.get("OTEL_TRACES_EXPORTER", "") != "none"


def trace_timeout() -> float:
    """Seconds that a collector of traces has to answer: OpenTelemetry's variable, else 2.

    The standard has milliseconds, its Python SDK takes seconds: from 100 on it is the former. More
    than 10 seconds it never is, since a stage waits for it.
    """
    for name in ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"):
        given = os.environ.get(name, "")
        if given.replace(".", "", 1).isdigit():
            seconds = float(given) / 1000 if float(given) >= 100 else float(given)
            return min(max(seconds, 0.05), 10.0)
    return 2.0


def trace_service() -> str:
    """Name of the service in traces: ``OTEL_SERVICE_NAME``, else ``visionloop``."""
    return os.environ.get("OTEL_SERVICE_NAME", "") or "visionloop"


def debug() -> bool:
    """Whether tracebacks are wanted."""
    return os.environ.get("VISIONLOOP_DEBUG", "") not in ("", "0")


def kfp_endpoint() -> str:
    """Address of the Kubeflow Pipelines API, as kfp's own client reads it."""
    return os.environ.get("KF_PIPELINES_ENDPOINT", "")


def kfp_token() -> str:
    """Bearer token for the Kubeflow Pipelines API, for machines outside the cluster."""
    return os.environ.get("VISIONLOOP_KFP_TOKEN", "")


def kfp_token_file() -> str:
    """File with a bearer token for the Kubeflow Pipelines API, read anew when it has changed.

    ``VISIONLOOP_KFP_TOKEN_FILE``, or where a pod's service account has its token.
    """
    return os.environ.get("VISIONLOOP_KFP_TOKEN_FILE", "") or os.environ.get(
        "KF_PIPELINES_SA_TOKEN_PATH", "/var/run/secrets/kubeflow/pipelines/token"
    )


def names_kfp_token_file() -> bool:
    """Whether a token file was named, which then has to be there."""
    return bool(os.environ.get("VISIONLOOP_KFP_TOKEN_FILE", ""))


def kfp_cookie() -> str:
    """Session cookie for the Kubeflow Pipelines API behind a login page, as ``name=value``."""
    return os.environ.get("VISIONLOOP_KFP_COOKIE", "")


def kfp_ca_file() -> str:
    """Certificate authority of the Kubeflow Pipelines API, where it is not a public one."""
    return os.environ.get("VISIONLOOP_KFP_CA_FILE", "")


def kfp_ui() -> str:
    """Address of the Kubeflow Pipelines UI, as kfp's own client reads it."""
    return os.environ.get("KF_PIPELINES_UI_ENDPOINT", "")


def kubeconfig() -> str:
    """Files that say which cluster kubectl speaks to, separated as PATH is."""
    return os.environ.get("KUBECONFIG", "") or "~/.kube/config"


def names_kubeconfig() -> bool:
    """Whether a cluster was named, also to a process that itself runs in one."""
    return bool(os.environ.get("KUBECONFIG", ""))


def in_cluster() -> bool:
    """Whether this process runs in a pod that may speak to its cluster."""
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST", ""))


def local_rank() -> tuple[int, int]:
    """Place of this process among those that torchrun started on this node, and their number."""
    return int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])


def pod_name() -> str:
    """Name of the pod that this process runs in, as Kubeflow Pipelines hands it over."""
    return os.environ.get("KFP_POD_NAME", "")


def fix_cublas_workspace() -> None:
    """Let cuBLAS give the same sums each time; it reads this once, with its first handle."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def hides_gpus() -> bool:
    """Whether this machine's GPUs are hidden from programs, in the words of CUDA's own variable."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1")


def refuse_telemetry() -> None:
    """Keep ONNX Runtime, before it is imported, from reporting models and machine to its makers.

    From 1.29 on its wheels for Linux do so by default, and leave a device's id under ``~/.cache``.
    Who wants it sets ``ORT_DISABLE_TELEMETRY=0``.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def want_debug() -> None:
    """Ask for tracebacks, here and in every child process."""
    os.environ["VISIONLOOP_DEBUG"] = "1"


@contextmanager
def passed_on(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables for the child processes that are started inside the block, and put them back.

    Args:
        values: Value by name.
    """
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
