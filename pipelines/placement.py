"""Where the tasks that may use an accelerator run, and how a task is cached and retried."""

from typing import Any

from kfp import kubernetes
from kfp.dsl import PipelineTask

# Data loaders hand batches over through shared memory, of which a pod has 64 MiB by default.
SHARED_MEMORY = "4Gi"

# The Kubernetes Secret in the runs' namespace, and what its keys become in a task.
SECRET = "visionloop"
SECRET_KEYS = {"catalog": "VISIONLOOP_CATALOG"}


def on_accelerator(
    task: PipelineTask,
    accelerator_type: Any,
    accelerator_count: Any,
    node_selector: Any,
    tolerations: Any,
) -> PipelineTask:
    """Let a task run on an accelerator, and start it again when its node goes away.

    Args:
        task: The task.
        accelerator_type: Pipeline parameter: resource name such as ``nvidia.com/gpu``; empty asks
            for none.
        accelerator_count: Pipeline parameter: how many.
        node_selector: Pipeline parameter: labels that the node must have.
        tolerations: Pipeline parameter: list of Kubernetes tolerations.

    Returns:
        The task.
    """
    task.set_accelerator_type(accelerator_type)
    task.set_accelerator_limit(accelerator_count)
    # The plain forms of these two do not accept parameters.
    kubernetes.add_node_selector_json(task, node_selector)
    kubernetes.add_toleration_json(task, tolerations)
    kubernetes.empty_dir_mount(
        task,
        volume_name="shared-memory",
        mount_path="/dev/shm",
        medium="Memory",
        size_limit=SHARED_MEMORY,
    )
    # Every stage resumes what a killed one left, so a second try costs only what was unfinished.
    task.set_retry(
        num_retries=2, backoff_duration="60s", backoff_factor=2.0, backoff_max_duration="600s"
    )
    return task


def never_cached(task: PipelineTask) -> PipelineTask:
    """Run a task every time: it reads or changes the world outside the lake.

    Args:
        task: The task.

    Returns:
        The task.
    """
    # On the task itself: switching the cache off at submission reaches root tasks only.
    return _with_secrets(task.set_caching_options(False))


def cached_by_version(task: PipelineTask) -> PipelineTask:
    """Let a task be skipped when it ran on the same lake version with the same parameters.

    Args:
        task: The task.

    Returns:
        The task.
    """
    return _with_secrets(task.set_caching_options(True))


def _with_secrets(task: PipelineTask) -> PipelineTask:
    # By reference: a secret's value never stands in YAML or in a run's parameters.
    return kubernetes.use_secret_as_env(
        task, secret_name=SECRET, secret_key_to_env=SECRET_KEYS, optional=True
    )
