"""Plays Kubeflow Trainer on the API server for tests: a TrainJob's commands really run, here."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from tests.cluster.api_server import ApiServer

ROOT = Path(__file__).resolve().parents[2]


class TrainerController:
    """Makes the pods of each TrainJob, and starts what they run as processes of this machine.

    Attributes:
        pod_status: Given to pods in place of running them, where a test sets it.
        message: Of the condition Failed.
        started: Every process that was started.
    """

    def __init__(self, server: ApiServer, *, held: bool = False) -> None:
        self.server = server
        self.pod_status: dict[str, Any] | None = None
        self.message = "jobset failed due to one or more job failures"
        self.started: list[subprocess.Popen[str]] = []
        self.held = held
        self._jobs: set[str] = set()
        server.controllers.append(self.react)

    def react(self, event: str, item: dict[str, Any]) -> None:
        """Do what the controller does when a TrainJob was made, admitted or deleted."""
        if item["kind"] != "TrainJob":
            return
        uid = item["metadata"]["uid"]
        if event == "DELETED":
            for process in self.started:
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
            return
        if self.held:
            self.set_condition(item, "Suspended", "TrainJob is suspended")
        elif uid not in self._jobs:
            self._jobs.add(uid)
            self.run(item)

    def admit(self, name: str) -> None:
        """Do what Kueue does when there is quota."""
        self.held = False
        job = self.server.read("TrainJob", name)
        assert job is not None
        self.server.set_status(job, {"conditions": []})

    def set_condition(self, job: dict[str, Any], kind: str, message: str) -> None:
        """Set the one condition of a TrainJob; nothing where it is gone."""
        if self.server.stopping:
            return
        held = self.server.read("TrainJob", job["metadata"]["name"])
        now = "2026-11-22T12:00:00Z"
        condition = {
            "type": kind, "status": "True", "reason": f"{kind}ByTest", "message": message,
            "lastTransitionTime": now,
        }  # fmt: skip
        if held and (held.get("status") or {}).get("conditions") != [condition]:
            self.server.set_status(job, {"conditions": [condition]})

    def run(self, job: dict[str, Any]) -> None:
        """Make the pods and start their processes."""
        name, trainer = job["metadata"]["name"], job["spec"]["trainer"]
        nodes = trainer["numNodes"]
        pods = [self._pod(name, number) for number in range(nodes)]
        for pod in pods:
            self.server.put(pod)
        if self.pod_status is not None:
            for pod in pods:
                self.server.set_status(pod, self.pod_status)
            return
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        processes = []
        for number, pod in enumerate(pods):
            env = os.environ | {
                "GLOO_SOCKET_IFNAME": "lo",
                # As the runtime torch-distributed sets them.
                "PET_NNODES": str(nodes),
                "PET_NPROC_PER_NODE": str(trainer["numProcPerNode"]),
                "PET_NODE_RANK": str(number),
                "PET_MASTER_ADDR": "127.0.0.1",
                "PET_MASTER_PORT": str(port),
            }
            env |= {one["name"]: one["value"] for one in trainer.get("env", [])}
            assert trainer["command"][0] == "python"
            command = [sys.executable, *trainer["command"][1:], *trainer["args"]]
            process = subprocess.Popen(
                command, env=env, cwd=ROOT, stderr=subprocess.PIPE, text=True,
                start_new_session=True,
            )  # fmt: skip
            self.started.append(process)
            processes.append(process)
            self.server.set_status(pod, _status("Running", {"running": {}}))
            lines = self.server.pod_logs.setdefault(f"{pod['metadata']['name']}/node", [])
            threading.Thread(target=self._copy, args=(process, lines), daemon=True).start()
        threading.Thread(target=self._wait, args=(job, pods, processes), daemon=True).start()

    def _copy(self, process: subprocess.Popen[str], lines: list[str]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line.rstrip("\n"))

    def _wait(self, job: dict[str, Any], pods: list[Any], processes: list[Any]) -> None:
        for pod, process in zip(pods, processes, strict=True):
            code = process.wait()
            ended = {"terminated": {"exitCode": code, "reason": "Error" if code else "Completed"}}
            self.server.set_status(pod, _status("Failed" if code else "Succeeded", ended))
        if any(process.returncode for process in processes):
            self.set_condition(job, "Failed", self.message)
        else:
            self.set_condition(job, "Complete", "jobset completed successfully")

    def _pod(self, name: str, number: int) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"{name}-node-0-{number}-abcde",
                "labels": {
                    "jobset.sigs.k8s.io/jobset-name": name,
                    "batch.kubernetes.io/job-completion-index": str(number),
                },
            },
            "spec": {"containers": [{"name": "node"}]},
        }


def _status(phase: str, state: dict[str, Any]) -> dict[str, Any]:
    return {"phase": phase, "containerStatuses": [{"name": "node", "state": state}]}
