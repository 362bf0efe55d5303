"""Recurring runs: made, replaced only where they differ, switched on and off, removed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from visionloop.errors import InputError
from visionloop.submission.listing import pages
from visionloop.submission.making import made_once
from visionloop.submission.refusals import ServerError, plain_errors
from visionloop.submission.versions import Version

# Each field of a cron expression as Kubeflow Pipelines reads it: its least and its greatest value,
# and the names of values from the least on.
_CRON_FIELDS = {
    "second": (0, 59, ""),
    "minute": (0, 59, ""),
    "hour": (0, 23, ""),
    "day of the month": (1, 31, ""),
    "month": (1, 12, "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC"),
    "day of the week": (0, 6, "SUN MON TUE WED THU FRI SAT"),
}
_CRON_PART = re.compile(r"(\*|\?|(\w+)(?:-(\w+))?)(?:/(\d+))?")


@dataclass(frozen=True)
class Schedule:
    """A recurring run on a server.

    Attributes:
        schedule_id: Its id.
        name: Its name.
        cron: When, in UTC, in six fields with the seconds in front; empty where it is periodic.
        enabled: Whether it starts runs.
        change: ``created``, ``replaced``, ``unchanged``, ``enabled``, ``disabled``, ``deleted``, or
            empty where it was only looked up.
    """

    schedule_id: str
    name: str
    cron: str
    enabled: bool
    change: str = ""


@dataclass(frozen=True)
class Wanted:
    """What a schedule should be.

    Attributes:
        name: Its name; it is unique in its experiment.
        experiment_id: Where its runs are filed.
        version: What runs.
        arguments: Values of the pipeline's parameters.
        cron: Six fields.
        pipeline_root: For artifacts; empty takes the server's.
        service_account: Of the pods; empty takes the server's.
    """

    name: str
    experiment_id: str
    version: Version
    arguments: Mapping[str, Any]
    cron: str
    pipeline_root: str = ""
    service_account: str = ""

    def equals(self, job: Any) -> bool:
        """Return whether a recurring run of kfp's does just this, be it switched on or off."""
        version, runtime = job.pipeline_version_reference, job.runtime_config
        return (
            version is not None
            and str(version.pipeline_version_id) == self.version.version_id
            and dict(getattr(runtime, "parameters", None) or {}) == dict(self.arguments)
            and str(getattr(runtime, "pipeline_root", None) or "") == self.pipeline_root
            # A server fills in its own account where none was asked for.
            and (not self.service_account or job.service_account == self.service_account)
            and _cron(job) == self.cron
        )


def put(client: Any, wanted: Wanted, *, replace: bool, where: str) -> Schedule:
    """Make a schedule, or leave the one that does the same.

    Args:
        client: The client.
        wanted: What it should be.
        replace: Whether one of that name that does something else is replaced. One that is switched
            off stays so.
        where: Address of the server, for errors.

    Raises:
        InputError: There is one of that name that does something else, and it is to stay.
        ServerError: The server refuses or does not answer.
    """
    before = [job for job in _all(client, wanted.experiment_id, where) if _name(job) == wanted.name]
    same = next((job for job in before if wanted.equals(job)), None)
    others = [job for job in before if job is not same]
    if others and not replace:
        raise InputError(
            f"there is a schedule `{wanted.name}` already, which does something else",
            where=f"recurring run {others[0].recurring_run_id}",
            remedy="Replace it with --replace, or choose another --name",
        )
    known = {str(job.recurring_run_id) for job in before}
    enabled = not before or any(map(_enabled, before))

    def find() -> Any:
        found = (job for job in _all(client, wanted.experiment_id, where) if wanted.equals(job))
        return next((j for j in found if str(j.recurring_run_id) not in known), None)

    def make() -> Any:
        with plain_errors(where):
            return client.create_recurring_run(
                experiment_id=wanted.experiment_id,
                job_name=wanted.name,
                cron_expression=wanted.cron,
                # What a missed start would have done, the next one does.
                no_catchup=True,
                max_concurrency=1,
                params=dict(wanted.arguments),
                pipeline_id=wanted.version.pipeline_id,
                version_id=wanted.version.version_id,
                enabled=enabled,
                pipeline_root=wanted.pipeline_root or None,
                service_account=wanted.service_account or None,
            )

    job = same if same is not None else made_once(find, make, look_first=False)[0]
    # The new one is there before the old one goes: a failure in between leaves two, never none.
    for other in others:
        _remove(client, str(other.recurring_run_id), where)
    change = "replaced" if others else "unchanged" if same is not None else "created"
    return _told(job, change)


def listed(client: Any, experiment_id: str, *, where: str) -> list[Schedule]:
    """Return the schedules of an experiment, by name.

    Args:
        client: The client.
        experiment_id: The experiment.
        where: Address of the server, for errors.
    """
    found = map(_told, _all(client, experiment_id, where))
    return sorted(found, key=lambda schedule: schedule.name)


def delete(client: Any, experiment_id: str, name: str, *, where: str) -> list[Schedule]:
    """Remove the schedule of a name; runs that it has started go on.

    Args:
        client: The client.
        experiment_id: The experiment.
        name: Name of the schedule.
        where: Address of the server, for errors.

    Returns:
        What was removed.

    Raises:
        InputError: There is none of that name.
    """
    found = _named(client, experiment_id, name, where)
    for job in found:
        _remove(client, str(job.recurring_run_id), where)
    return [_told(job, "deleted") for job in found]


def switch(
    client: Any, experiment_id: str, name: str, *, enabled: bool, where: str
) -> list[Schedule]:
    """Switch the schedule of a name on or off.

    Args:
        client: The client.
        experiment_id: The experiment.
        name: Name of the schedule.
        enabled: Whether it starts runs from now on.
        where: Address of the server, for errors.

    Returns:
        The schedule as it is now.

    Raises:
        InputError: There is none of that name.
    """
    found = _named(client, experiment_id, name, where)
    ask = client.enable_recurring_run if enabled else client.disable_recurring_run
    for job in found:
        with plain_errors(where):
            ask(str(job.recurring_run_id))
    word = "enabled" if enabled else "disabled"
    return [Schedule(str(job.recurring_run_id), name, _cron(job), enabled, word) for job in found]


def with_seconds(cron: str) -> str:
    """Return a cron expression in the six fields that Kubeflow Pipelines reads.

    Args:
        cron: Five fields, or six with the seconds in front.

    Raises:
        InputError: It has another number of fields, or a field holds what it cannot.
    """
    fields = cron.split()
    if len(fields) == 5:
        fields = ["0", *fields]
    if len(fields) != 6:
        raise InputError(
            f"{cron!r} is not a cron expression",
            where="--cron",
            remedy='Give five fields, minute first: "0 6 * * *" is every day at 6:00 UTC',
        )
    for name, field in zip(_CRON_FIELDS, fields, strict=True):
        least, most, _ = _CRON_FIELDS[name]
        if not all(_fits(part, name) for part in field.split(",")):
            raise InputError(
                f"{cron!r} is not a cron expression: {field!r} is no {name}",
                where="--cron",
                remedy=f"Give {least} to {most}, a range such as {least}-{most}, a list with "
                "commas, or * with a step such as */5",
            )
    return " ".join(fields)


def _fits(part: str, name: str) -> bool:
    """Whether one entry of a field's list is a value, a range or a star, with a step or without."""
    least, most, names = _CRON_FIELDS[name]
    found = _CRON_PART.fullmatch(part)
    if not found or (found[4] is not None and not int(found[4])):
        return False
    if found[2] is None:
        return found[1] != "?" or name.startswith("day")
    known = {word: number for number, word in enumerate(names.split(), start=least)}
    bounds = []
    for text in (found[2], found[3] or found[2]):
        value = known.get(text.upper(), int(text) if text.isdecimal() else -1)
        bounds.append(value)
    return least <= bounds[0] <= bounds[1] <= most


def _all(client: Any, experiment_id: str, where: str) -> list[Any]:
    with plain_errors(where):
        return list(
            pages(client.list_recurring_runs, "recurring_runs", experiment_id=experiment_id)
        )


def _named(client: Any, experiment_id: str, name: str, where: str) -> list[Any]:
    every = _all(client, experiment_id, where)
    found = [job for job in every if _name(job) == name]
    if not found:
        known = ", ".join(sorted(map(_name, every)))
        raise InputError(
            f"there is no schedule `{name}`",
            where=where,
            remedy=f"The experiment has {known}" if known else "The experiment has none",
        )
    return found


def _remove(client: Any, schedule_id: str, where: str) -> None:
    try:
        with plain_errors(where):
            client.delete_recurring_run(schedule_id)
    except ServerError as error:
        # Gone already: another job was faster, or the answer to the first request got lost.
        if error.status != 404:
            raise


def _told(job: Any, change: str = "") -> Schedule:
    return Schedule(str(job.recurring_run_id), _name(job), _cron(job), _enabled(job), change)


def _name(job: Any) -> str:
    return str(job.display_name)


def _cron(job: Any) -> str:
    schedule = getattr(job.trigger, "cron_schedule", None)
    return str(getattr(schedule, "cron", None) or "")


def _enabled(job: Any) -> bool:
    # `mode` is what was asked for, `status` what is; a list of some servers has only one of them.
    told = str(job.mode or "") or str(job.status or "")
    return told in ("ENABLE", "ENABLED")
