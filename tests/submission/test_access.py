"""Who asks: tokens, token files that rotate, cookies, and what is said without them."""

from __future__ import annotations

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


def test_a_right_that_lacks_is_told_in_the_servers_words() -> None:
    with KfpStub() as kfp:
        server = Server.connect(kfp.url)
        words = "User 'ci' is not authorized with reason: Verb:list Resource:experiments"
        kfp.fail("GET", "/experiments", 403, message=words)
        with pytest.raises(ServerError, match="Verb:list Resource:experiments"):
            server.experiment("visionloop")
