"""Trains a plan as a TrainJob: makes it, follows it, and brings its result or its failure."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from visionloop import environment
from visionloop.cluster import Cluster, Forbidden, connect
from visionloop.errors import VisionloopError
from visionloop.progress import log
from visionloop.training import plan as plans
from visionloop.training.attendance import attending
from visionloop.training.interruption import notice
from visionloop.training.job_following import Following
from visionloop.training.own_pod import surroundings
from visionloop.training.plan import FAILURE_FILE, Plan, Result
from visionloop.training.trainer import Interrupted
from visionloop.training.trainjob_document import API_VERSION, GROUP, KIND, job_name, train_job

if TYPE_CHECKING:
    from visionloop.config import LoopConfig

# A container that cannot be made, by its image or its configuration, is tried again so long.
_STUCK_SECONDS = 120.0
_DELETION_SECONDS = 120.0
_LOOK_SECONDS = 1.0


def train_as_job(plan: Plan, loop: LoopConfig) -> Result:
    """Train a plan as a TrainJob.

    Its name follows from the plan: a task that is tried again goes on with the job that it had
    made, and one whose job failed makes it anew, which goes on from the checkpoint. SIGTERM deletes
    the job, whose pods leave a checkpoint: a run that is cancelled holds no GPU. One whose task was
    killed outright stops by itself once nobody has waited for it for a while. A job that has ended
    well is deleted, one that failed stays to be looked at.

    Args:
        plan: What to train; it was saved.
        loop: The configuration.

    Returns:
        What the job's pods left in the lake.

    Raises:
        InputError: The job would not be valid, or its pods say that of the configuration.
        Interrupted: SIGTERM came.
        VisionloopError: The job failed, did not start in time, or was deleted.
    """
    # In a pod its own namespace; from elsewhere the one that the configuration names.
    cluster = connect(namespace="" if environment.pod_name() else loop.cluster.namespace)
    if not cluster.versions(GROUP):
        raise VisionloopError(
            "the cluster does not serve TrainJobs",
            where=f"API group {GROUP}",
            remedy="Install Kubeflow Trainer 2.2 or newer, or set training.runner: pod",
        )
    name = job_name(plan)
    if result := Result.load(plan):
        # The try before this one was killed between the end of its job and the record of it.
        cluster.delete(API_VERSION, KIND, name)
        return result
    # Before the job is made: a SIGTERM in between would leave one that nobody follows.
    with notice() as interrupted, attending(plan):
        job = _begin(cluster, name, plan, loop)
        following = _follow(cluster, job, plan, interrupted)
    if following.succeeded and (result := Result.load(plan)):
        cluster.delete(API_VERSION, KIND, name)
        return result
    raise _failure(following, cluster, name, plan)


def _follow(
    cluster: Cluster, job: dict[str, Any], plan: Plan, interrupted: Callable[[], bool]
) -> Following:
    """Follow a job to its end; delete it where that makes no sense any more."""
    name = job["metadata"]["name"]
    following = Following(cluster, job, nodes=plan.parameters.trainjob.nodes)
    with following:
        while not following.ended:
            try:
                following.look(_LOOK_SECONDS)
            except Forbidden:
                # Nobody could follow it, and nobody would end it.
                cluster.delete(API_VERSION, KIND, name)
                raise
            if interrupted():
                cluster.delete(API_VERSION, KIND, name)
                raise Interrupted(
                    f"the task was asked to stop; the TrainJob {name} was deleted",
                    where=f"namespace {cluster.namespace}",
                    remedy="Run the task again: it goes on from the checkpoint",
                )
            _refuse_not_starting(following, cluster, name, plan)
    return following


def _begin(cluster: Cluster, name: str, plan: Plan, loop: LoopConfig) -> dict[str, Any]:
    """Make the job, unless an earlier try has made it and it may still succeed; return it."""
    held = cluster.get(API_VERSION, KIND, name)
    if held is not None and not held["metadata"].get("deletionTimestamp"):
        # One that is complete has left nothing: that was looked for before.
        if not condition(held, "Failed") and not condition(held, "Complete"):
            log(f"train: goes on with the TrainJob {name}, which an earlier try has made")
            return held
        cluster.delete(API_VERSION, KIND, name)
    if held is not None:
        log(f"train: makes the TrainJob {name} anew")
        _wait_until_gone(cluster, name)
    plan.storage.delete(plan.path(FAILURE_FILE))
    made = cluster.apply(train_job(plan, loop, surroundings(loop, cluster)))
    log(f"train: made the TrainJob {name} in the namespace {cluster.namespace}")
    return made


def _wait_until_gone(cluster: Cluster, name: str) -> None:
    for state in cluster.watch(API_VERSION, KIND, name, timeout_s=_DELETION_SECONDS):
        if state is None:
            return
    raise VisionloopError(
        f"the TrainJob {name} of an earlier try is still being deleted",
        where=f"namespace {cluster.namespace}",
        remedy=f"Look at what holds it: kubectl describe trainjob {name}",
    )


def condition(job: dict[str, Any], kind: str) -> dict[str, Any] | None:
    """Return a condition of a TrainJob that is true.

    Args:
        job: The TrainJob.
        kind: ``Suspended``, ``Complete`` or ``Failed``.

    Returns:
        The condition; None where it is not true.
    """
    for one in (job.get("status") or {}).get("conditions") or []:
        if one["type"] == kind and one["status"] == "True":
            return dict(one)
    return None


def _refuse_not_starting(following: Following, cluster: Cluster, name: str, plan: Plan) -> None:
    """Delete a job that will not start: it would hold its quota for nothing."""
    minutes = plan.parameters.trainjob.start_minutes
    now = time.monotonic()
    stuck = following.stuck_since
    if stuck is not None and now - stuck > _STUCK_SECONDS:
        what = f"the TrainJob {name} cannot start"
    elif following.waiting_since is not None and now - following.waiting_since > minutes * 60:
        what = f"the TrainJob {name} did not start within {minutes:g} minutes"
    else:
        return
    cluster.delete(API_VERSION, KIND, name)
    reasons = "; ".join(f"{pod}: {why}" for pod, why in sorted(following.failures.items()))
    raise VisionloopError(
        f"{what}, and was deleted: {reasons or 'it has no pods'}",
        where=f"namespace {cluster.namespace}",
        remedy="Correct what is named, the node pool under cluster or the runtime under "
        "training.trainjob, or raise training.trainjob.start_minutes; then run the task again",
    )


def _failure(following: Following, cluster: Cluster, name: str, plan: Plan) -> VisionloopError:
    """Return why a job failed: its processes' own word, else what its pods and conditions say."""
    where = f"TrainJob {name}, namespace {cluster.namespace}"
    tail = following.tell_failed_logs()
    if own := plans.failure_of(plan):
        return type(own)(own.what, where=f"{own.where}; {where}" if own.where else where,
                         remedy=own.remedy)  # fmt: skip
    if following.job is None:
        return VisionloopError(
            "the TrainJob was deleted while it ran",
            where=where,
            remedy="Run the task again: it goes on from the checkpoint",
        )
    if following.succeeded:
        what = "the TrainJob has ended well and left no model in the lake"
    else:
        said = condition(following.job, "Failed") or {}
        words = [str(said[key]) for key in ("reason", "message") if said.get(key)]
        what = "the TrainJob failed: " + ": ".join(words or ["it does not say why"])
    reasons = [f"{pod}: {why}" for pod, why in sorted(following.failures.items())]
    return VisionloopError(
        "; ".join([what, *reasons, *([f"last words: {tail}"] if tail else [])]),
        where=where,
        remedy="Its pods stay to be looked at: kubectl describe trainjob "
        f"{name}; the task that is run again makes it anew and goes on from the checkpoint",
    )
