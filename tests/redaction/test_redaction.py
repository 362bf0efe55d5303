"""What is secret is not told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from visionloop import environment
from visionloop.config import load_config
from visionloop.errors import InputError, VisionloopError
from visionloop.redaction import redacted


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("postgresql://me:s3cret@host/db", "postgresql://me:***@host/db"),
        ("postgresql+psycopg2://me:s3c/re:t@host", "postgresql+psycopg2://me:***@host"),
        ("postgresql://me:s3c@ret@host/db", "postgresql://me:***@host/db"),
        ("401 for url: https://:tok@host/v1?a=b x", "401 for url: https://:***@host/v1?a=b x"),
        ("sqlite:///c.db?timeout=3&password=s3cret", "sqlite:///c.db?timeout=3&password=***"),
        ("https://host/v1?access_token=abc&x=1", "https://host/v1?access_token=***&x=1"),
        ("http://127.0.0.1:8080/v1", "http://127.0.0.1:8080/v1"),
        ("postgresql://me@host:5432/db", "postgresql://me@host:5432/db"),
        ("gs://bucket/a:b/c.jpg", "gs://bucket/a:b/c.jpg"),
    ],
)
def test_an_address_is_told_without_its_password(text: str, told: str) -> None:
    assert redacted(text) == told


def test_a_secret_of_this_process_is_hidden_wherever_it_stands(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mounted = tmp_path / "catalog"
    mounted.write_text("postgresql://me:from%2Ffile@host/db\n", encoding="utf-8")
    monkeypatch.setenv("VISIONLOOP_CATALOG", "postgresql://me:from-env@host/db")
    monkeypatch.setenv("VISIONLOOP_CATALOG_FILE", str(mounted))
    monkeypatch.setenv("VISIONLOOP_KFP_TOKEN", "the-token")
    text = "FATAL: from-env, from%2Ffile, from/file, Bearer the-token"
    assert redacted(text) == "FATAL: ***, ***, ***, Bearer ***"
    error = VisionloopError("no: from-env", where="the-token", remedy="not from/file")
    assert str(error) == "no: *** (***). not ***."
    assert error.args == ("no: ***",)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("{lake: x, catalog: 'postgresql+psycopg2://me:s3cret@host/db'}", "`catalog`"),
        ("{lake: x, catalog: 'postgresql://me:s3c/ret@host/db'}", "`catalog`"),
        ("{lake: x, catalog: 'https://host/v1?token=s3cret'}", "`catalog`"),
        ("{lake: x, serving: {url: 'http://me:s3cret@host'}}", "`serving.url`"),
        ("{lake: x, sources: [{uri: 'https://me:s3cret@host/photos'}]}", "`sources.uri`"),
    ],
)
def test_a_configuration_with_a_password_is_refused_without_telling_it(
    text: str, field: str
) -> None:
    with pytest.raises(InputError) as refused:
        load_config(text)
    told = str(refused.value)
    assert field in told
    assert "s3c" not in told
    assert ("VISIONLOOP_CATALOG_FILE" in told) == (field == "`catalog`")


def test_addresses_without_a_secret_are_accepted() -> None:
    for catalog in ("postgresql://me@host:5432/db", "https://host:8181/a@b", "sqlite:////c.db"):
        assert load_config(f"{{lake: x, catalog: '{catalog}'}}").catalog == catalog


def test_the_catalog_comes_from_a_mounted_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from visionloop.lake.catalog import catalog_uri

    mounted = tmp_path / "catalog"
    mounted.write_text("sqlite:////mounted.db\n", encoding="utf-8")
    monkeypatch.setenv("VISIONLOOP_CATALOG_FILE", str(mounted))
    assert catalog_uri("gs://bucket/lake", "https://of.the.configuration") == (
        "sqlite:////mounted.db"
    )
    monkeypatch.setenv("VISIONLOOP_CATALOG", "sqlite:////direct.db")
    assert environment.catalog_uri() == "sqlite:////direct.db"


def test_a_pods_secret_is_read_where_the_pipelines_mount_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from visionloop.pipelines.placement import SECRET_FOLDER

    assert f"{SECRET_FOLDER}/catalog" == environment.CATALOG_SECRET
    mounted = tmp_path / "catalog"
    mounted.write_text("postgresql://me:by-pod@host/db", encoding="utf-8")
    monkeypatch.setattr(environment, "CATALOG_SECRET", str(mounted))
    assert environment.catalog_uri() == "postgresql://me:by-pod@host/db"
    assert redacted("FATAL: by-pod") == "FATAL: ***"
    mounted.unlink()
    assert environment.catalog_uri() == ""


def test_the_keys_of_a_pods_secret_reach_its_process_and_are_told_to_nobody(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    key = {"type": "service_account", "private_key": "-----BEGIN KEY-----", "private_key_id": "k1"}
    (tmp_path / "gcs.json").write_text(json.dumps(key), encoding="utf-8")
    (tmp_path / "labelstudio_token").write_text("token-of-label-studio\n", encoding="utf-8")
    (tmp_path / "VISIONLOOP_KFP_TOKEN").write_text("token-of-kfp", encoding="utf-8")
    (tmp_path / "VISIONLOOP_STORAGE_TIMEOUT").write_text("7", encoding="utf-8")
    (tmp_path / "unrelated").write_text("unrelated", encoding="utf-8")
    program = (
        "import os, sys\n"
        "from visionloop import environment\n"
        "from visionloop.redaction import redacted\n"
        "environment.SECRET_FOLDER = sys.argv[1]\n"
        "environment.take_mounted_secrets()\n"
        "print(os.environ['GOOGLE_APPLICATION_CREDENTIALS'], environment.storage_timeout())\n"
        "print(environment.kfp_token() == 'token-of-kfp', 'unrelated' in os.environ)\n"
        "print(redacted('token-of-kfp, token-of-label-studio, -----BEGIN KEY-----, 7'))\n"
    )
    environ = {name: value for name, value in os.environ.items() if "VISIONLOOP" not in name}
    environ.pop("GOOGLE_APPLICATION_CREDENTIALS", None)

    def run(**given: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path)],
            env=environ | given,
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.splitlines()

    assert run() == [f"{tmp_path}/gcs.json 7.0", "True False", "***, ***, ***, 7"]
    # What a person has set stays.
    assert run(VISIONLOOP_STORAGE_TIMEOUT="9")[0] == f"{tmp_path}/gcs.json 9.0"


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe\x00"])
def test_a_mounted_file_that_is_absent_or_empty_is_an_error_with_a_remedy(
    content: bytes | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mounted = tmp_path / "catalog"
    if content is not None:
        mounted.write_bytes(content)
    monkeypatch.setenv("VISIONLOOP_CATALOG_FILE", str(mounted))
    with pytest.raises(InputError, match="the file with the catalog's address"):
        environment.catalog_uri()
