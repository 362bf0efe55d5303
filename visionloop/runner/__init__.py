"""Runs pipelines on this machine, under KFP's local runner."""

from visionloop.runner.result import RunResult, TaskResult

__all__ = ["RunResult", "TaskResult"]
