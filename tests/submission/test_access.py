"""Who asks: tokens, token files that rotate, cookies, and what is said without them."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.submission.kfp_stub import KfpStub
from visionloop import environment
from visionloop.errors import InputError
from visionloop.submission import Access, Server, ServerError


def test_a_token_is_sent_with_every_request() -> None:
    with KfpStub(tokens=("t-1",)) as kfp:
        server = Server.connect(kfp.url, access=Access(token="t-1"))
        server.experiment("visionloop")
    assert kfp.tokens == {"Bearer t-1"}


def test_a_token_file_that_rotated_is_read_anew_after_a_401(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old", encoding="utf-8")
    with KfpStub(tokens=("old",)) as kfp:
        server = Server.connect(kfp.url, access=Access(token_file=str(file)))

        def rotate() -> None:
            kfp.accepted = ["new"]
            file.write_text("new", encoding="utf-8")

        # The old token expires between being read and being checked.
        kfp.fail("GET", "/experiments", 401, then=rotate)
        assert server.experiment("visionloop") == "experiment-0"
        lists = kfp.asked("GET", "/experiments")
    assert [seen.token for seen in lists] == ["Bearer old", "Bearer new"]


def test_a_refused_upload_is_sent_again_whole(tmp_path: Path, work: object) -> None:
    file = tmp_path / "token"
    file.write_text("old", encoding="utf-8")
    with KfpStub(tokens=("old",)) as kfp:
        server = Server.connect(kfp.url, access=Access(token_file=str(file)))

        def rotate() -> None:
            kfp.accepted = ["new"]
            file.write_text("new", encoding="utf-8")

        kfp.fail("POST", "/upload_version", 401, then=rotate)
        version = server.upload(work)  # type: ignore[arg-type]
        assert kfp.packages[version.name].startswith("# PIPELINE DEFINITION")


def test_a_token_that_stays_refused_is_not_tried_for_ever() -> None:
    with KfpStub(tokens=("good",)) as kfp:
        server = Server.connect(kfp.url, access=Access(token="good"))
        kfp.accepted = ["another"]
        with pytest.raises(ServerError, match="does not accept") as caught:
            server.experiment("visionloop")
        assert caught.value.status == 401
        assert len(kfp.asked("GET", "/experiments")) == 1


def test_kubectls_plugin_is_asked_for_a_new_token_after_a_401(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text("first", encoding="utf-8")
    plugin = tmp_path / "plugin"
    plugin.write_text(
        '#!/bin/sh\nprintf \'{"apiVersion": "client.authentication.k8s.io/v1beta1", '
        '"kind": "ExecCredential", "status": {"token": "%s"}}\' '
        f'"$(cat {token})"\n',
        encoding="utf-8",
    )
    plugin.chmod(0o755)
    with KfpStub(tokens=("first",)) as kfp:
        user = {
            "exec": {
                "apiVersion": "client.authentication.k8s.io/v1beta1",
                "command": str(plugin),
                "interactiveMode": "Never",
            }
        }
        kubeconfig = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "gke",
            "contexts": [{"name": "gke", "context": {"cluster": "gke", "user": "ci"}}],
            "clusters": [{"name": "gke", "cluster": {"server": kfp.url}}],
            "users": [{"name": "ci", "user": user}],
        }
        (tmp_path / "config").write_text(json.dumps(kubeconfig), encoding="utf-8")
        location = "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION"
        monkeypatch.setattr(location, str(tmp_path / "config"))
        server = Server.connect()
        # An hour later, in the middle of a round.
        token.write_text("second", encoding="utf-8")
        kfp.accepted = ["second"]
        assert server.experiment("visionloop") == "experiment-0"
        assert kfp.tokens == {"Bearer first", "Bearer second"}
        # There is no page for people behind the proxy: no link is better than a wrong one.
        assert server.url("run-0") == ""


def test_a_session_cookie_passes_the_login_page() -> None:
    cookie = "authservice_session=MTYx"
    with KfpStub(cookies=(cookie,)) as kfp:
        server = Server.connect(kfp.url, access=Access(cookie=cookie))
        assert server.experiment("visionloop") == "experiment-0"
    assert {seen.cookie for seen in kfp.requests} == {cookie}


@pytest.mark.parametrize("cookie", ["", "authservice_session=expired"])
def test_a_login_page_is_told_from_an_answer(cookie: str) -> None:
    with (
        KfpStub(cookies=("authservice_session=good",)) as kfp,
        pytest.raises(ServerError, match="login page") as caught,
    ):
        Server.connect(kfp.url, access=Access(cookie=cookie))
    assert ("session may be over" in str(caught.value)) == bool(cookie)


def test_the_environment_names_the_way_in_and_its_secrets_are_never_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISIONLOOP_KFP_COOKIE", "oauth2_proxy=c00kie-value")
    assert Access.from_environment().cookie == "oauth2_proxy=c00kie-value"
    assert "c00kie-value" in environment.secrets()
    monkeypatch.setenv("VISIONLOOP_KFP_COOKIE", "first=one-value; second=other-value")
    assert {"one-value", "other-value"} <= set(environment.secrets())
    monkeypatch.setenv("VISIONLOOP_KFP_TOKEN_FILE", str(tmp_path / "absent"))
    with pytest.raises(InputError, match="not there"):
        Access.from_environment()


def test_a_token_without_a_server_and_no_server_at_all_are_told() -> None:
    with pytest.raises(InputError, match="no server to show it to"):
        Server.connect(access=Access(token="t"))
    with pytest.raises(InputError, match="no cluster is configured"):
        Server.connect()


def test_a_certificate_authority_that_is_not_there_is_told() -> None:
    with KfpStub() as kfp, pytest.raises(InputError, match="certificate authority"):
        Server.connect(kfp.url, ca_file="/no/such/ca.pem")


def test_a_server_with_a_certificate_of_its_own_authority_is_trusted_when_it_is_named(
    tmp_path: Path,
) -> None:
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    file = str(tmp_path / "server.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", file, "-out", str(tmp_path / "ca.pem")],
        check=True, capture_output=True,
    )  # fmt: skip
    with (tmp_path / "server.pem").open("a", encoding="utf-8") as both:
        both.write((tmp_path / "ca.pem").read_text(encoding="utf-8"))
    with KfpStub(certificate=file) as kfp:
        with pytest.raises(ServerError, match="certificate is not trusted") as caught:
            Server.connect(kfp.url)
        assert "--ca-file" in str(caught.value) and not caught.value.passing
        server = Server.connect(kfp.url, ca_file=str(tmp_path / "ca.pem"))
        assert server.experiment("visionloop") == "experiment-0"


def test_a_right_that_lacks_is_told_in_the_servers_words() -> None:
    with KfpStub() as kfp:
        server = Server.connect(kfp.url)
        words = "User 'ci' is not authorized with reason: Verb:list Resource:experiments"
        kfp.fail("GET", "/experiments", 403, message=words)
        with pytest.raises(ServerError, match="Verb:list Resource:experiments"):
            server.experiment("visionloop")


def test_a_cookie_without_a_name_and_an_address_of_another_kind_are_refused_unasked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for host in ("ftp://kfp.example", "https://", "file:///kfp"):
        with pytest.raises(InputError, match="no address") as caught:
            Server.connect(host)
        assert "https://" in caught.value.remedy
    monkeypatch.setenv("VISIONLOOP_KFP_COOKIE", "MTY5secret")
    with pytest.raises(InputError) as caught:
        Server.connect("http://127.0.0.1:9")
    assert "name=value" in caught.value.remedy and "MTY5secret" not in str(caught.value)


def test_a_server_for_one_user_is_asked_without_a_namespace() -> None:
    with KfpStub(single_user=True) as kfp:
        server = Server.connect(kfp.url, namespace="team-a")
        assert server.namespace == "" and server.experiment("visionloop") == "experiment-0"
