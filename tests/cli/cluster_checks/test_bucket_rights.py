"""A right in a bucket that the account at work lacks is found, with the command that gives it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cli.cluster_checks.google_stub import ISSUER, Google, google_apis
from tests.cli.cluster_checks.made import NAMESPACE, thing
from tests.cluster.api_server import ApiServer
from visionloop.cli.checks import Finding
from visionloop.cli.cluster_checks.bucket_rights import bucket_rights
from visionloop.cli.cluster_checks.question import Question
from visionloop.cluster import connect
from visionloop.config import load_config

READ = {"storage.objects.get", "storage.objects.list"}
WRITE = READ | {"storage.objects.create", "storage.objects.delete"}
RUNNER = "rights of visionloop-runner in gs://lake"


def google_account(who: str) -> str:
    return f"{who}@shop.iam.gserviceaccount.com"


@pytest.fixture
def google(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Google]:
    """A GKE cluster whose three accounts may do all that they need."""
    server.issuer = ISSUER
    with google_apis() as found:
        monkeypatch.setenv("VISIONLOOP_GOOGLE_APIS", found.url)
        for who, rights in (("runner", WRITE), ("collector", WRITE), ("predictor", READ)):
            name, account = f"visionloop-{who}", google_account(who)
            annotated = {"annotations": {"iam.gke.io/gcp-service-account": account}}
            server.put(thing("ServiceAccount", name, metadata=annotated), namespace=NAMESPACE)
            found.acts_as[f"{NAMESPACE}/{name}"] = account
            found.rights[account, "lake"] = set(rights)
        found.rights[google_account("runner"), "photos"] = set(READ)
        yield found


def findings() -> dict[str, Finding]:
    overrides = {
        "lake": "gs://lake/loop",
        "sources": [{"uri": "gs://photos/in"}],
        "serving.kserve": {"service_account": "visionloop-predictor"},
    }
    config = load_config("{}", overrides=overrides)
    question = Question(config=config, account="visionloop-runner", image="a:1")
    return {f.check: f for f in bucket_rights(connect(namespace=NAMESPACE), question)}


def test_accounts_with_all_that_they_need_are_well(google: Google) -> None:
    found = findings()
    assert {finding.state for finding in found.values()} == {"ok"}
    assert set(found) == {
        RUNNER,
        "rights of visionloop-runner in gs://photos",
        "rights of visionloop-collector in gs://lake",
        "rights of visionloop-predictor in gs://lake",
    }


@pytest.mark.parametrize(
    ("who", "bucket", "right", "role"),
    [
        ("runner", "lake", "storage.objects.delete", "objectUser"),
        ("runner", "photos", "storage.objects.list", "objectViewer"),
        ("collector", "lake", "storage.objects.create", "objectUser"),
        ("predictor", "lake", "storage.objects.get", "objectViewer"),
    ],
)
def test_a_right_that_lacks_is_named_with_the_command_that_gives_it(
    google: Google, who: str, bucket: str, right: str, role: str
) -> None:
    google.rights[google_account(who), bucket].remove(right)
    found = findings()
    (bad,) = (f for f in found.values() if f.state != "ok")
    assert bad.check == f"rights of visionloop-{who} in gs://{bucket}" and bad.state == "fail"
    assert bad.found.endswith(f"lacks {right}")
    assert bad.remedy == (
        f"gcloud storage buckets add-iam-policy-binding gs://{bucket} "
        f"--member=serviceAccount:{google_account(who)} --role=roles/storage.{role}"
    )


def test_an_account_that_may_not_act_as_its_google_account_is_found(google: Google) -> None:
    del google.acts_as[f"{NAMESPACE}/visionloop-runner"]
    found = findings()[RUNNER]
    assert found.state == "fail" and "may not act as runner@shop" in found.found
    assert "roles/iam.workloadIdentityUser" in found.remedy
    assert f"shop.svc.id.goog[{NAMESPACE}/visionloop-runner]" in found.remedy


def test_an_account_without_annotation_acts_as_itself(google: Google, server: ApiServer) -> None:
    server.put(thing("ServiceAccount", "visionloop-runner"), namespace=NAMESPACE)
    found = findings()[RUNNER]
    assert found.state == "fail" and "principal://" in found.remedy
    google.rights[f"{NAMESPACE}/visionloop-runner", "lake"] = set(WRITE)
    assert findings()[RUNNER].state == "ok"


def test_a_bucket_that_there_is_not_fails(google: Google) -> None:
    google.rights = {key: held for key, held in google.rights.items() if key[1] != "photos"}
    found = findings()["rights of visionloop-runner in gs://photos"]
    assert found.state == "fail" and "no such bucket" in found.found


def test_what_may_not_be_asked_cannot_be_told(google: Google, server: ApiServer) -> None:
    google.status = 503
    assert findings()[RUNNER].state == "warn"
    google.status = 0
    server.denied.add("create serviceaccounts/token")
    found = findings()
    assert {f.state for f in found.values()} == {"warn"}
    assert all("cannot tell" in f.found for f in found.values())
    server.denied.clear()
    server.issuer = "https://kubernetes.default.svc"
    assert "not of GKE" in findings()[RUNNER].found
