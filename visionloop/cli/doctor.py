"""Check this machine, a lake (with --lake or --config) and a cluster (with --cluster)."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from visionloop import environment
from visionloop.cli import checks, labeling_checks
from visionloop.cli.configuration import add_lake_options, lake_config
from visionloop.cli.parser import image, namespace, show

# What every check says that could not look.
_UNTOLD = "cannot tell"
_MARKS = {"ok": "✓", "warn": "!", "fail": "✗"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_lake_options(parser)
    parser.add_argument("--cluster", action="store_true", help="check the cluster too")
    parser.add_argument(
        "--host", default="", metavar="URL", help="address of the Kubeflow Pipelines API"
    )
    parser.add_argument(
        "--namespace",
        default="",
        type=namespace,
        help="of the tasks (default: cluster.namespace, or kubectl's)",
    )
    parser.add_argument(
        "--service-account",
        default="",
        metavar="NAME",
        help="account of the tasks (default: cluster.service_account, else Kubeflow Pipelines')",
    )
    parser.add_argument(
        "--image",
        default="",
        type=image,
        metavar="IMG",
        help="image of the tasks (default: cluster.image)",
    )
    parser.add_argument(
        "--strict", action="store_true", help="fail also where something cannot be told from here"
    )
    parser.add_argument("--json", action="store_true", help="print the findings as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    findings = []
    for finding in _findings(args):
        findings.append(finding)
        if not args.json:
            print(f"{_MARKS[finding.state]} {finding.check}: {finding.found}", flush=True)
            if finding.remedy:
                print(f"    {finding.remedy.rstrip('.')}.")
    failed = sum(finding.state == "fail" for finding in findings)
    warned = sum(finding.state == "warn" for finding in findings)
    untold = sum(finding.state == "warn" and _UNTOLD in finding.found for finding in findings)
    show(
        {
            "findings": [asdict(finding) for finding in findings],
            "failed": failed,
            "warned": warned,
            "untold": untold,
        },
        as_json=args.json,
        text=f"{len(findings)} checks: {failed} failed, {warned} with a warning"
        + (f", {untold} of which cannot be told from here" if untold else ""),
    )
    return 1 if failed or (args.strict and untold) else 0


def _findings(args: argparse.Namespace) -> Iterator[checks.Finding]:
    yield from checks.machine(Path.cwd())
    config = None
    if args.lake or args.config:
        config = lake_config(args, looks_only=True)
        yield checks.Finding("configuration", "ok", f"loop {config.name}")
        afar = args.cluster and not environment.in_cluster()
        yield from checks.lake(config, afar=afar)
        yield from labeling_checks.labeling(config, afar=afar)
    if args.cluster:
        from visionloop.cli.cluster_checks.cluster import cluster
        from visionloop.cli.cluster_checks.question import Question

        question = Question(
            config=config if args.config else None,
            host=args.host,
            namespace=args.namespace,
            account=args.service_account,
            image=args.image,
        )
        yield from cluster(question)
