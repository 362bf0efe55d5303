"""Whether the loop is healthy, from what the report shows, in sentences with a severity each."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from visionloop.monitoring.intervals import wilson
from visionloop.monitoring.kinds import KINDS
from visionloop.monitoring.report.charts.reading import interval
from visionloop.monitoring.report.data import ReportData, Round, new_since
from visionloop.monitoring.report.data_health import (
    ACT,
    CANNOT_TELL,
    ERROR,
    HEALTHY,
    INFO,
    LOOK,
    WARNING,
    Finding,
    Verdict,
)
from visionloop.monitoring.report.health import severity_of, told_flag
from visionloop.monitoring.report.verdict_models import (
    NO_GATE,
    Limits,
    of_models,
    told_accuracy,
)
from visionloop.monitoring.unjudged import OF_DRIFT, title_of
from visionloop.words import counted, in_round, round_id_of, round_name

# Share of unreadable files of the newest round, and of events lost, that are worth a look or an
# act: judged by the lower end of the interval, so that few files never raise an alarm.
UNREADABLE_LOOK, UNREADABLE_ACT, LOST_LOOK = 0.02, 0.2, 0.01
# Without a deadline a round may wait so long for people.
WAITS = timedelta(days=7)
# Told of by findings of their own.
_TOLD_APART = {"unreadable", "failed_stage"}
_ORDER = {ERROR: 0, WARNING: 1, INFO: 2}
_SUBJECTS = 3


def verdict(data: ReportData, limits: Limits) -> Verdict:
    """Return the verdict.

    It is ``act`` with an error among the findings, ``look`` with a warning, ``cannot tell`` where
    no model serves whose accuracy is known or no gate says how accurate it has to be, and
    ``healthy`` otherwise.

    Args:
        data: What the report shows.
        limits: What it is held against.
    """
    if not data.rounds and not data.n_samples and not data.failed:
        return Verdict()
    found = [
        *_acts(data),
        *_stages(data),
        *of_models(data, limits),
        *_flags(data),
        *_files(data),
        *_waiting(data, limits),
        *_events(data),
        *_sums(data),
        *_drift(data),
        *_not_judged(data),
    ]
    found.sort(key=lambda one: (_ORDER[one.severity], one.unknown))
    findings = tuple(found)
    worst = findings[0].severity if findings else INFO
    untold = [one for one in findings if one.unknown]
    if worst == ERROR:
        n = sum(one.severity == ERROR for one in findings)
        return Verdict(ACT, "Act now", _because(findings, n, "needs", "need", "action"), findings)
    if worst == WARNING:
        n = sum(one.severity == WARNING for one in findings)
        return Verdict(LOOK, "Have a look", _because(findings, n, "is", "are", "odd"), findings)
    if data.in_service_accuracy is None:
        return Verdict(CANNOT_TELL, "Cannot tell yet", _not_yet(findings), findings)
    if any(one.key == NO_GATE for one in findings):
        said = (
            f"The model in service is {told_accuracy(data.in_service_accuracy)}, and nothing is "
            "odd, but nobody has said how accurate it has to be."
        )
        return Verdict(CANNOT_TELL, "Cannot tell: no gate says what will do", said, findings)
    said = f"The model in service is {told_accuracy(data.in_service_accuracy)}, and nothing is odd"
    if untold:
        said += f", as far as can be told: {_lower(untold[0].text)}"
    return Verdict(HEALTHY, "Healthy", f"{said.rstrip('.')}.", findings)


def _not_yet(findings: tuple[Finding, ...]) -> str:
    """Return why a loop without a model in service cannot be judged, and what it waits for."""
    said = "No model is in service yet, so how good the loop is cannot be told."
    waits = [one.text for one in findings if one.section == "rounds"]
    return " ".join([said, *waits[:1]])


def _because(findings: tuple[Finding, ...], n: int, one: str, many: str, what: str) -> str:
    if n == 1:
        return f"1 thing {one} {what}: {findings[0].text}"
    return f"{counted(n, 'thing')} {many} {what}. The first: {findings[0].text}"


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _acts(data: ReportData) -> Iterator[Finding]:
    for one in data.acts:
        if one.act == "block":
            yield Finding(
                ERROR,
                one.text,
                "lineage",
                "Look at the reason; `visionloop watch --unblock` lifts the block.",
                "publication_blocked",
            )
        else:
            yield Finding(
                WARNING,
                one.text,
                "selection",
                "It is lowered again by itself once its reason is gone.",
                "random_share_raised",
            )
    watched = next((one for one in data.decisions if one.decision == "watch"), None)
    if watched is not None and watched.outcome not in ("", "wait"):
        said = f"The last watch decided: {watched.outcome.replace('_', ' ')}."
        yield Finding(INFO, f"{said} {watched.reason}".strip(), "lineage", key="watch")


def _stages(data: ReportData) -> Iterator[Finding]:
    for one in data.failed:
        where = _when(one.round_id, data)
        when = f" on {one.at:%Y-%m-%d %H:%M} UTC" if one.at else ""
        name = one.stage.replace("_", " ")
        yield Finding(
            ERROR,
            f"The stage {name}{where} failed{when} and has not succeeded since: {one.what}",
            "rounds",
            one.remedy,
            "failed_stage",
        )


def _flags(data: ReportData) -> Iterator[Finding]:
    of_others: dict[str, list[str]] = {}
    for flag in data.standing:
        of_others.setdefault(flag.kind, []).append(told_flag(flag))
    for kind in sorted(data.flag_counts, key=lambda kind: _urgency(data, kind)):
        severity = severity_of(kind)
        if kind in _TOLD_APART or severity == INFO:
            continue
        about = KINDS.get(kind)
        title = about.title if about else kind.replace("_", " ").capitalize()
        stands, n = _counting(data, kind)
        if not n:
            continue
        if kind in of_others:
            named = of_others[kind]
            more = n - len(named[:_SUBJECTS])
            said = ", ".join(named[:_SUBJECTS]) + (f" and {more:,} more" if more > 0 else "")
        elif stands:
            said = f"{n:,} now"
        else:
            said = f"{n:,} {new_since(data)}"
        yield Finding(
            severity,
            f"{title}: {said}.",
            "drift" if about and about.about == "drift" else "flags",
            about.remedy if about else "",
            f"flags.{kind}",
        )


def _counting(data: ReportData, kind: str) -> tuple[bool, int]:
    """Return whether flags of a kind stand while it is so, and how many are told of."""
    stands = kind in KINDS and KINDS[kind].standing
    return stands, data.flag_counts[kind] if stands else data.new_flags.get(kind, 0)


def _urgency(data: ReportData, kind: str) -> tuple[bool, int, str]:
    """Return what kinds are sorted by: what is so now first, then what there is most of."""
    stands, n = _counting(data, kind)
    return not stands, -n, kind


def _files(data: ReportData) -> Iterator[Finding]:
    brought = [one for one in data.rounds if one.funnel.found]
    if not brought:
        return
    newest = brought[-1]
    # Notes and sidecars that were left behind are no pictures that cannot be read.
    n, n_pictures = newest.funnel.unreadable, newest.funnel.found - newest.funnel.no_picture
    rate = wilson(n, n_pictures)
    if rate.low <= UNREADABLE_LOOK:
        return
    yield Finding(
        ERROR if rate.low > UNREADABLE_ACT else WARNING,
        f"{rate.value:.1%} of the files found{_when(newest.round_id, data)} "
        f"cannot be read ({n:,} of {n_pictures:,}{_left_aside(newest.funnel.no_picture)}; "
        f"{interval(rate)}).",
        "funnel",
        "See what writes them; the gallery of what is not readable names them.",
        "unreadable_share",
    )


def _when(round_id: str, data: ReportData) -> str:
    """Return `` in round 3``, or nothing before the first one, when nothing else can be meant."""
    if not round_id or (round_id == data.upcoming and round_id_of("0") == round_id):
        return ""
    return f" {in_round(round_id, data.upcoming)}"


def _left_aside(n: int) -> str:
    if not n:
        return ""
    files = counted(n, "file that is no picture", "files that are no pictures")
    return f", {files} left aside"


def _waiting(data: ReportData, limits: Limits) -> Iterator[Finding]:
    for held in data.rounds:
        if held.state == "waiting":
            since = held.opened_at
            overdue = bool(limits.now and limits.deadline and limits.deadline < limits.now)
            if limits.deadline is None and since is not None and limits.now is not None:
                overdue = limits.now - since > WAITS
            text = f"{round_name(held.round_id).capitalize()} waits for "
            text += counted(held.missing_labels, "label") if held.missing_labels else "labels"
            if overdue and limits.deadline:
                text += f", which were due on {limits.deadline:%Y-%m-%d %H:%M} UTC"
            elif overdue and since:
                text += f" since {since:%Y-%m-%d}"
            yield Finding(
                WARNING if overdue else INFO,
                f"{text}.",
                "rounds",
                "Label them (`visionloop labels status` tells where), then run the round again: "
                "it goes on where it stopped.",
                "labels_overdue" if overdue else "labels_awaited",
            )
        elif held.state == "running":
            yield _running(held, failed=bool(data.failed))


def _running(held: Round, *, failed: bool) -> Finding:
    reached = next(reversed(held.seconds), "").replace("_", " ")
    after = f"; the last stage that ended was {reached}" if reached else ""
    text = f"{round_name(held.round_id).capitalize()} is not finished{after}."
    remedy = "" if failed else "Where no run is at work any more, run the round again: it goes on."
    return Finding(INFO, text, "rounds", remedy, "round_not_finished")


def _events(data: ReportData) -> Iterator[Finding]:
    logged = data.total.step("logged")
    if logged is None or not logged.n:
        return
    lost = sum(row.count for row in data.harvest if row.state in ("orphan", "rejected"))
    rate = wilson(lost, logged.n)
    if rate.low > LOST_LOOK:
        yield Finding(
            WARNING,
            f"{rate.value:.1%} of the logged events ({interval(rate)}) are lost to the loop: "
            f"{lost:,} of {logged.n:,} are refused, or lack their other half.",
            "events",
            "The list of events names the reasons; look at the logger of the endpoint.",
            "events_lost",
        )


def _sums(data: ReportData) -> Iterator[Finding]:
    for account in (data.total, *data.accounts):
        for step in (*account.steps, *account.events):
            if not step.adds_up:
                of = _when(account.round_id, data)
                where = of if account.round_id else " of all rounds"
                text = f"The counts{where} do not add up at the step {step.title.lower()}: "
                text += f"{abs(step.missing):,} {step.unit} are unaccounted for."
                yield Finding(
                    ERROR,
                    text,
                    "funnel",
                    "Run `visionloop lake check`; if it finds nothing, this is an error of ours.",
                    "counts_do_not_add_up",
                )


def _not_judged(data: ReportData) -> Iterator[Finding]:
    # Of drift there is a finding of its own, and what is past no number would mend any more.
    untold = [one for one in data.not_judged if OF_DRIFT.isdisjoint(one.kinds) and not one.earlier]
    if untold:
        titles = list(dict.fromkeys(title_of(one).lower() for one in untold))
        yield Finding(
            INFO,
            f"Not judged, too few to say: {', '.join(titles)}.",
            "flags",
            "The list of what was not judged says how many there are and how many are needed.",
            "not_judged",
            unknown=True,
        )


def _drift(data: ReportData) -> Iterator[Finding]:
    if data.drift_note and data.rounds:
        yield Finding(INFO, data.drift_note, "drift", key="drift_unknown", unknown=True)
