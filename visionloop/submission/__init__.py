"""Starts and schedules pipelines on a Kubeflow Pipelines server: the command line's way, for CI.

Needs the base install alone::

    from visionloop.submission import Server

    server = Server.connect("https://kfp.example/pipeline", namespace="team-a")
    run = server.submit("round", "loop.yaml", once="4f2a91c")
    end = server.follow(run, told=print)
    if not end.succeeded:
        for reason in server.reasons(run, end):
            print(reason.text())
"""

from visionloop.submission.access import Access
from visionloop.submission.following import End
from visionloop.submission.reasons import Reason
from visionloop.submission.refusals import ServerError
from visionloop.submission.runs import StartInterrupted
from visionloop.submission.schedules import Schedule
from visionloop.submission.server import Run, Server
from visionloop.submission.tasks import Task
from visionloop.submission.work import Work, prepare

__all__ = [
    "Access",
    "End",
    "Reason",
    "Run",
    "Schedule",
    "Server",
    "ServerError",
    "StartInterrupted",
    "Task",
    "Work",
    "prepare",
]
