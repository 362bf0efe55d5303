"""The files of docs/ci are what GitHub, GitLab and Kubernetes take, and their commands are ours."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.manifests.rendering import ROOT, render
from tests.manifests.test_commands import parsed
from tests.manifests.test_pod_security import violations
from tests.manifests.test_schemas import KUBERNETES, problems
from tests.submission.kfp_stub import KfpStub
from visionloop import __version__
from visionloop.cli import main
from visionloop.components.image import RELEASE
from visionloop.config import load_config
from visionloop.submission.schedules import with_seconds

CI = ROOT / "docs" / "ci"
GITOPS = CI / "gitops"
TEXTS = {path.name: path.read_text(encoding="utf-8") for path in CI.glob("*.yml")}


def commands(text: str) -> Iterator[list[str]]:
    """Yield the command lines of ours in a shell script, without what the shell does with them."""
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        found = re.search(r"(?:^|/|\s)visionloop ((?:submit|doctor|compile|schedule)\b.*)", line)
        if found:
            words = shlex.split(found[1])
            cut = next((n for n, word in enumerate(words) if word in ("|", ">", "&&")), len(words))
            yield words[:cut]


def scripts() -> dict[str, str]:
    """Return every script of the two files, by file and job."""
    github = yaml.safe_load(TEXTS["github-actions.yml"])
    steps = github["jobs"]["round"]["steps"]
    gitlab = yaml.safe_load(TEXTS["gitlab-ci.yml"])
    return {
        "github": "\n".join(step.get("run", "") for step in steps),
        "gitlab": "\n".join(gitlab[".round"]["script"]),
        "gitlab gke": "\n".join(gitlab["round-gke"]["before_script"]),
    }


@pytest.mark.parametrize(
    ("file", "schema"),
    [
        ("github-actions.yml", ["vendor.github-workflows"]),
        ("gitlab-ci.yml", ["vendor.gitlab-ci", "--data-transform", "gitlab-ci"]),
    ],
)
def test_each_file_is_what_its_service_takes(file: str, schema: list[str]) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", *schema]
    done = subprocess.run([*command, str(CI / file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("file", ["github", "gitlab"])
def test_the_cluster_is_checked_and_then_one_round_is_run_and_waited_for(file: str) -> None:
    checked, submitted = list(commands(scripts()[file]))
    assert parsed(checked).cluster
    options = parsed(submitted)
    assert (options.pipeline, options.wait, options.json) == ("round", True, True)
    # Started again, a job has the same key; and the wait ends before the service ends the job.
    assert re.search(r"\$(GITHUB_RUN_ID|CI_PIPELINE_ID)", options.once)
    assert options.timeout < 350 * 60


@pytest.mark.parametrize("file", TEXTS)
def test_only_the_base_install_of_this_release_is_installed(file: str) -> None:
    (installed,) = re.findall(r"VISIONLOOP: (.+)", TEXTS[file])
    assert f"v{__version__}" in installed and "[" not in installed
    assert 'install "$VISIONLOOP"' in TEXTS[file] or '--quiet "$VISIONLOOP"' in TEXTS[file]


def test_two_rounds_are_never_run_at_once() -> None:
    github = yaml.safe_load(TEXTS["github-actions.yml"])
    assert github["concurrency"] == {"group": "visionloop-round", "cancel-in-progress": False}
    gitlab = yaml.safe_load(TEXTS["gitlab-ci.yml"])
    assert gitlab[".round"]["resource_group"] == "visionloop-round"
    assert {gitlab[job]["extends"] for job in ("round", "round-gke")} == {".round"}


def test_a_failed_round_fails_the_job_although_its_result_is_piped() -> None:
    github = yaml.safe_load(TEXTS["github-actions.yml"])
    (step,) = [s for s in github["jobs"]["round"]["steps"] if "submit" in s.get("run", "")]
    assert step["shell"] == "bash" and step["run"].startswith("set -o pipefail\n")
    assert "|" not in next(
        line
        for line in yaml.safe_load(TEXTS["gitlab-ci.yml"])[".round"]["script"]
        if "submit" in line
    )


def test_the_result_is_kept_also_when_the_round_failed() -> None:
    github = yaml.safe_load(TEXTS["github-actions.yml"])
    (kept,) = [
        s for s in github["jobs"]["round"]["steps"] if "upload-artifact" in s.get("uses", "")
    ]
    assert kept["if"] == "always()" and kept["with"]["path"] == "round.json"
    artifacts = yaml.safe_load(TEXTS["gitlab-ci.yml"])[".round"]["artifacts"]
    assert artifacts["when"] == "always" and artifacts["paths"] == ["round.json"]


def test_every_shell_script_parses() -> None:
    for name, script in scripts().items():
        plain = re.sub(r"\$\{\{.*?\}\}", "x", script)
        done = subprocess.run(
            ["bash", "-n"], input=plain, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (name, done.stderr)


def scheduled_by(file: str) -> list[dict[str, Any]]:
    """Return what the kustomization makes, where that file is the one of the three in it."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(GITOPS, Path(folder) / "gitops"))
        kustomization = copy / "kustomization.yaml"
        text = kustomization.read_text(encoding="utf-8")
        assert text.count("\n  - schedule.yaml\n") == 1 and text.count(file) == 1
        text = text.replace("  - schedule.yaml", "").replace(f"  # - {file}", f"  - {file}")
        kustomization.write_text(text, encoding="utf-8")
        return render(copy)


def job() -> dict[str, Any]:
    return next(d for d in render(GITOPS) if d["kind"] == "Job")


def scheduled_workflow() -> dict[str, Any]:
    documents = scheduled_by("scheduled-workflow.yaml")
    return next(d for d in documents if d["kind"] == "ScheduledWorkflow")


def cron_job() -> dict[str, Any]:
    return next(d for d in scheduled_by("cron-job.yaml") if d["kind"] == "CronJob")


def test_namespace_and_image_of_the_gitops_files_stand_in_one_place_each() -> None:
    texts = {path.name: path.read_text(encoding="utf-8") for path in GITOPS.glob("*.yaml")}
    others = {name: text for name, text in texts.items() if name != "kustomization.yaml"}
    for name, text in others.items():
        assert not re.search(r"^ *namespace:", text, re.M), name
    images = {
        image for text in others.values() for image in re.findall(r"^ *image: (.+)", text, re.M)
    }
    assert images == {RELEASE.rpartition(":")[0]}
    kustomization = yaml.safe_load(texts["kustomization.yaml"])
    assert kustomization["images"] == [{"name": images.pop(), "newTag": __version__}]
    for document in (job(), cron_job(), scheduled_workflow()):
        assert document["metadata"]["namespace"] == kustomization["namespace"]
        assert re.findall(r"'image': '([^']+)'", str(document)) == [RELEASE]


def test_every_image_and_version_of_ours_in_the_folder_is_this_release() -> None:
    for path in sorted(CI.rglob("*.*")):
        text = path.read_text(encoding="utf-8")
        for tag in re.findall(r"visionloop/visionloop:([\w.-]+)|newTag: (\S+)", text):
            assert "".join(tag).removesuffix("-cpu") == __version__, path
        for version in re.findall(r"visionloop(?:\.git)?@v([\d.]+\d)", text):
            assert version == __version__, path


def test_the_loop_with_its_commented_lines_is_a_loop_with_gpus_and_an_endpoint() -> None:
    text = (GITOPS / "loop.yaml").read_text(encoding="utf-8")
    whole = re.sub(r"^( *)# (?=( *)(- |[a-z_]+:( |$)))", r"\1", text, flags=re.M)
    loop = load_config(whole)
    assert loop.cluster.accelerator_type == "nvidia.com/gpu" and loop.cluster.node_selector
    assert loop.cluster.tolerations and loop.cluster.namespace == "team-a"
    assert loop.serving.kserve and loop.serving.kserve.service_account == "visionloop-predictor"


def test_the_cron_job_starts_one_restricted_pod_at_a_time() -> None:
    kubernetes_validate.validate(cron_job(), KUBERNETES[0], strict=True)
    spec = cron_job()["spec"]
    assert spec["concurrencyPolicy"] == "Forbid" and with_seconds(spec["schedule"])
    pod = spec["jobTemplate"]["spec"]["template"]["spec"]
    assert list(violations(pod)) == []
    (container,) = pod["containers"]
    program, *words = container["command"]
    options = parsed(words)
    assert (program, options.pipeline, options.wait) == ("visionloop", "watch", True)
    assert options.once == "$(JOB)" and container["env"][0]["name"] == "JOB"
    # But for its command and that key it is the Job's pod.
    other = job()["spec"]["template"]["spec"]
    same = {**container, "name": "", "command": [], "env": container["env"][1:]}
    assert {**pod, "containers": [same]} == {
        **other,
        "containers": [{**other["containers"][0], "name": "", "command": []}],
    }


def as_pod(workflow: dict[str, Any]) -> dict[str, Any]:
    """Return the pod that Argo makes of the workflow's only template."""
    spec = workflow["spec"]["workflow"]["spec"]
    (template,) = spec["templates"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "submit"},
        "spec": {
            "serviceAccountName": spec["serviceAccountName"],
            "securityContext": spec["securityContext"],
            "containers": [{"name": "main", **template["container"]}],
            "volumes": spec["volumes"],
        },
    }


def test_the_gitops_files_validate_strictly_and_pass_restricted(shared: Path) -> None:
    documents = render(GITOPS)
    assert [d["kind"] for d in documents] == ["ConfigMap", "Job"]
    for document in [*documents, as_pod(scheduled_workflow())]:
        kubernetes_validate.validate(document, KUBERNETES[0], strict=True)
    assert problems(scheduled_workflow(), shared / "crds" / "kfp-2.17.0") == []
    assert list(violations(job()["spec"]["template"]["spec"])) == []
    assert list(violations(as_pod(scheduled_workflow())["spec"])) == []


def test_a_scheduled_workflow_names_no_pipeline_and_its_entrypoint_is_there() -> None:
    spec = scheduled_workflow()["spec"]
    # With one the controller would ask the API server, which knows only schedules of its own.
    assert not {"pipelineId", "pipelineVersionId", "experimentId"} & set(spec)
    assert with_seconds(spec["trigger"]["cronSchedule"]["cron"]) == "0 0 * * * *"
    workflow = spec["workflow"]["spec"]
    assert workflow["entrypoint"] == workflow["templates"][0]["name"]
    given = {p["name"] for p in spec["workflow"]["parameters"]}
    used = set(re.findall(r"\{\{workflow\.parameters\.(\w+)\}\}", str(workflow)))
    assert given == used == {p["name"] for p in workflow["arguments"]["parameters"]}


def test_what_the_pods_run_is_ours_and_finds_its_configuration_and_token() -> None:
    for pod in (job()["spec"]["template"], as_pod(scheduled_workflow())):
        (container,) = pod["spec"]["containers"]
        program, *words = container["command"]
        options = parsed(words)
        assert program == "visionloop" and options.pipeline == "watch"
        assert container["image"] == RELEASE
        mounts = {m["mountPath"]: m["name"] for m in container["volumeMounts"]}
        volumes = {v["name"]: v for v in pod["spec"]["volumes"]}
        folder, file = options.config.rsplit("/", 1)
        assert volumes[mounts[folder]]["configMap"]["name"] == "visionloop-loop"
        assert file == "loop.yaml"
        environment = {e["name"]: e["value"] for e in container["env"]}
        folder = environment["KF_PIPELINES_SA_TOKEN_PATH"].rsplit("/", 1)[0]
        (source,) = volumes[mounts[folder]]["projected"]["sources"]
        assert source["serviceAccountToken"]["audience"] == "pipelines.kubeflow.org"
        # The file system is read-only; kfp and its libraries write below the home folder.
        assert environment["HOME"] in mounts
    assert with_seconds(
        parsed(job()["spec"]["template"]["spec"]["containers"][0]["command"][1:]).cron
    )


def test_the_example_of_a_loop_and_the_commands_of_the_page_are_right(tmp_path: Path) -> None:
    loop = load_config(GITOPS / "loop.yaml")
    assert loop.cluster.service_account == "visionloop-runner"
    page = (GITOPS / "README.md").read_text(encoding="utf-8")
    shown = "\n".join(re.findall(r"^```\n(.*?)^```", page, re.S | re.M))
    (compiling,) = commands(shown)
    build = ["--output", str(tmp_path), "--config", str(GITOPS / "loop.yaml")]
    assert main([*compiling, *build]) == 0
    assert (tmp_path / "pipelines" / "watch.yaml").is_file()


def test_pipelines_as_objects_validate_strictly(tmp_path: Path, shared: Path) -> None:
    config = str(GITOPS / "loop.yaml")
    command = ["compile", "--kubernetes-manifests", "--namespace", "team-a", "--config", config]
    assert main([*command, "--output", str(tmp_path)]) == 0
    for path in sorted((tmp_path / "pipelines").glob("*.yaml")):
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        documents = list(yaml.load_all(path.read_text(encoding="utf-8"), Loader=loader))
        assert [d["kind"] for d in documents] == ["Pipeline", "PipelineVersion"]
        for document in documents:
            assert document["metadata"]["namespace"] == "team-a"
            assert problems(document, shared / "crds" / "kfp-2.17.0") == []
        assert documents[1]["spec"]["pipelineName"] == documents[0]["metadata"]["name"]


def test_the_check_passes_on_a_ci_machine_that_reaches_kubeflow_pipelines_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "pyiceberg" else there(name)
    )
    with KfpStub() as kfp:
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", kfp.url)
        config = ["--config", str(GITOPS / "loop.yaml")]
        assert main(["doctor", "--cluster", *config, "--json"]) == 0
        told = capsys.readouterr().out
        assert main(["doctor", "--cluster", *config, "--json", "--strict"]) == 1
    found = {f["check"]: f for f in json.loads(told)["findings"]}
    assert json.loads(told)["untold"] >= 2
    assert found["Kubeflow Pipelines"]["state"] == "ok"
    for check in ("Kubernetes", "lake gs://example-lake/clothing"):
        assert found[check]["state"] == "warn" and "cannot tell from here" in found[check]["found"]


def test_the_check_fails_where_nothing_of_a_cluster_is_reached(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with KfpStub() as kfp:
        gone = kfp.url
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", gone)
    assert main(["doctor", "--cluster", "--json"]) == 1
    found = {f["check"]: f["state"] for f in json.loads(capsys.readouterr().out)["findings"]}
    assert (found["Kubernetes"], found["Kubeflow Pipelines"]) == ("fail", "fail")
