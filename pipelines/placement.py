"""Where the tasks that may use an accelerator run, how a task is cached, what is mounted in it."""

from typing import Any

from kfp import kubernetes
from kfp.dsl import PipelineTask
from kfp.dsl.pipeline_channel import PipelineChannel

# Data loaders hand batches over through shared memory, of which a pod has 64 MiB by default.
SHARED_MEMORY = "4Gi"
# The Secret that every task finds mounted where there is one, a file a key: `catalog` is the
# address of the lake's catalog with its password. `visionloop.environment` reads them there.
SECRET = "visionloop"
SECRET_FOLDER = "/var/run/secrets/visionloop"
# What a task asks for unless a configuration says otherwise: without a request and a limit a
# namespace with a ResourceQuota admits no pod.
CPU = "1"
MEMORY = "4Gi"
ACCELERATOR_CPU = "2"
ACCELERATOR_MEMORY = "8Gi"
# Shards at work at once.
WIDTH = 4
# A task on an accelerator is started again so often, after a minute, then after two.
RETRIES = 2
# How long after its first try's start a task may be tried again: a try that is under way then is
# ended. KFP calls it the longest backoff and hands it to Argo's `backoff.maxDuration`, which is
# that. It has to outlast any training, or a node that is taken away late is never made up for.
RETRIES_WITHIN = "2592000s"  # 30 days


def on_accelerator(
    task: PipelineTask,
    *,
    accelerator_type: Any,
    accelerator_count: Any,
    node_selector: Any,
    tolerations: Any,
    cpu: Any,
    memory: Any,
) -> PipelineTask:
    """Let a task run on an accelerator, and start it again when its container fails.

    That covers a container that was killed: by a preempted node's shutdown, or for its memory. kfp
    can name no retry policy, and Argo's own, ``OnFailure``, does not cover a pod that vanishes with
    its node: then the run fails, and the next one goes on behind the files of the shards and the
    checkpoint of the training.

    Args:
        task: The task.
        accelerator_type: Pipeline parameter: resource name such as ``nvidia.com/gpu``; empty asks
            for none.
        accelerator_count: Pipeline parameter, or a number: how many.
        node_selector: Pipeline parameter: labels that the node must have.
        tolerations: Pipeline parameter: list of Kubernetes tolerations.
        cpu: Pipeline parameter: its cores, request and limit.
        memory: Pipeline parameter: its memory, request and limit.

    Returns:
        The task.
    """
    # kfp forgets to hand these on into a loop or a condition, unless the task names them itself.
    handed_on = (accelerator_type, accelerator_count, cpu, memory)
    task.register_pipeline_channels([v for v in handed_on if isinstance(v, PipelineChannel)])
    task.set_accelerator_type(accelerator_type)
    task.set_accelerator_limit(accelerator_count)
    task.set_cpu_request(cpu).set_cpu_limit(cpu)
    task.set_memory_request(memory).set_memory_limit(memory)
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
    return again_when_killed(task)


def again_when_killed(task: PipelineTask) -> PipelineTask:
    """Start a task again when its container fails, which covers one that was killed.

    Args:
        task: The task.

    Returns:
        The task.
    """
    # Every stage resumes what a killed one left, so a second try costs only what was unfinished.
    return task.set_retry(
        num_retries=RETRIES,
        backoff_duration="60s",
        backoff_factor=2.0,
        backoff_max_duration=RETRIES_WITHIN,
    )


def never_cached(task: PipelineTask) -> PipelineTask:
    """Run a task every time: it reads or changes more than the lake, or judges by the clock.

    It has the secrets.

    Args:
        task: The task.

    Returns:
        The task.
    """
    # On the task itself: switching the cache off at submission reaches root tasks only.
    return _furnished(task).set_caching_options(False)


def cached_by_version(task: PipelineTask) -> PipelineTask:
    """Let a task be skipped when it ran on the same lake version with the same parameters.

    When it runs, it has the secrets.

    Args:
        task: The task.

    Returns:
        The task.
    """
    return _furnished(task).set_caching_options(True)


def _furnished(task: PipelineTask) -> PipelineTask:
    # Optional: a lake whose catalog needs no password has no Secret either.
    kubernetes.use_secret_as_volume(
        task, secret_name=SECRET, mount_path=SECRET_FOLDER, optional=True
    )
    task.set_cpu_request(CPU).set_cpu_limit(CPU)
    return task.set_memory_request(MEMORY).set_memory_limit(MEMORY)
