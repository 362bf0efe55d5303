"""Who may post to a collector, over real connections."""

from __future__ import annotations

import base64
import http.client
import os
import ssl
import subprocess
import time
from pathlib import Path

import pytest

from tests.serving.conftest import Server, Starter
from tests.serving.test_collector import EVENT, lines
from tests.serving.test_collector_room import refused
from visionloop.errors import InputError
from visionloop.serving.access import Access, Certificates, Tokens
from visionloop.serving.cloudevents import EventSender, Origin

OLD, NEW = "0123456789abcdef-old", "0123456789abcdef-new"


def with_token(server: Server, authorization: str) -> int:
    return server.post("/", b"x", {**EVENT, "Authorization": authorization})[0]


def basic(token: str) -> str:
    return "Basic " + base64.b64encode(f"logger:{token}".encode()).decode()


def test_only_who_knows_a_token_may_post_and_the_others_are_counted(
    start: Starter, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(OLD + "\n")
    folder = tmp_path / "events"
    server = start("collect", events=str(folder), port=0, token_file=str(tokens))
    assert server.get("/readyz") == b"ready\n"  # a probe knows no token
    status, _, headers = server.post("/", b"x", EVENT)
    assert (status, headers["www-authenticate"]) == (401, "Bearer")
    for wrong in (
        "Bearer x",
        "Bearer " + NEW,
        basic(NEW),
        "Basic ???",
        "Digest " + OLD,
        "Bearer ü",
    ):
        assert with_token(server, wrong) == 401
    assert refused(server) == {"unauthorized": 7}
    assert with_token(server, f"Bearer {OLD}") == with_token(server, basic(OLD)) == 200
    # Rotated: first both are good, then the new one alone.
    for held, good, bad in ((f"{OLD}\n{NEW}\n", NEW, "x"), (NEW, NEW, OLD)):
        other = tmp_path / "other"
        other.write_text(held)
        other.replace(tokens)
        time.sleep(1.1)
        assert with_token(server, basic(good)) == 200
        assert with_token(server, basic(bad)) == 401
    # A file that went away, or holds nothing, locks nobody out, and lets nobody in.
    tokens.write_text("")
    time.sleep(1.1)
    assert with_token(server, basic(NEW)) == 200
    assert with_token(server, "Bearer ") == 401
    server.stop()
    assert all("authorization" not in line.get("headers", {}) for line in lines(folder))
    assert "tokens that it held stay valid" in server.log.read_text()


def test_our_sender_shows_the_token_of_its_address(start: Starter, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(OLD)
    server = start("collect", events=str(tmp_path / "e"), port=0, token_file=str(tokens))
    for address, delivered in ((f"logger:{OLD}@", 1), ("", 0)):
        url = server.url.replace("//", f"//{address}")
        sender = EventSender(url, Origin("service"))
        sender.emit("request", event_id="1", body=b"x", content_type="", metadata={})
        sender.close()
        assert sender.sent.delivered == delivered
    assert sender.sent.dropped == {"sink_refused": 1}


@pytest.mark.parametrize("text", ["", "short\n", f"{OLD}\nshort\n"])
def test_a_file_without_good_tokens_is_refused_at_the_start(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tokens"
    path.write_text(text)
    with pytest.raises(InputError, match="16 characters"):
        Tokens(str(path))


def test_without_token_or_authority_everybody_may_post_and_with_one_nobody_else() -> None:
    assert Access().grants("", certified=False)
    by_certificate = Access(by_certificate=True)
    assert by_certificate.grants("", certified=True)
    assert not by_certificate.grants("Bearer x", certified=False)


class Authority:
    """Makes certificates with OpenSSL."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self.path = folder / f"{name}.pem"
        self._key = folder / f"{name}.key"
        _openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-subj", f"/CN={name}", "-days", "2"),
            *("-keyout", str(self._key), "-out", str(self.path)),
        )

    def issue(self, name: str, to: Path) -> Path:
        """Write a certificate and its key into one file."""
        key, request, made = (self._folder / f"{name}.{end}" for end in ("key", "csr", "crt"))
        _openssl(
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-subj", f"/CN={name}", "-keyout", str(key), "-out", str(request)),
        )
        names = self._folder / "names"
        names.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        _openssl(
            *("x509", "-req", "-in", str(request), "-CA", str(self.path), "-CAkey", str(self._key)),
            *("-CAcreateserial", "-days", "2", "-extfile", str(names), "-out", str(made)),
        )
        part = to.with_suffix(".part")
        part.write_text(made.read_text() + key.read_text())
        part.replace(to)
        return to


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def over_tls(server: Server, authority: Path, client: Path | None = None) -> int:
    """Post over TLS and return the status."""
    context = ssl.create_default_context(cafile=str(authority))
    if client:
        context.load_cert_chain(str(client))
    connection = http.client.HTTPSConnection(
        "127.0.0.1", server.ports["http"], timeout=20, context=context
    )
    try:
        connection.request("POST", "/", body=b"x", headers=EVENT)
        return connection.getresponse().status
    finally:
        connection.close()


def test_a_client_certificate_of_the_authority_is_enough_and_files_are_read_again(
    start: Starter, tmp_path: Path
) -> None:
    ours, theirs, strange = (Authority(tmp_path, name) for name in ("ours", "theirs", "strange"))
    certificate = ours.issue("collector", tmp_path / "collector.pem")
    client = theirs.issue("client", tmp_path / "client.pem")
    stranger = strange.issue("stranger", tmp_path / "stranger.pem")
    trusted = tmp_path / "clients.pem"
    trusted.write_bytes(theirs.path.read_bytes())
    server = start(
        "collect",
        events=str(tmp_path / "events"),
        port=0,
        certificate=str(certificate),
        client_authority=str(trusted),
    )
    assert over_tls(server, ours.path, client) == 200
    assert over_tls(server, ours.path) == 401  # a probe of the kubelet has no certificate either
    with pytest.raises(OSError):  # the handshake ends, or the connection after it
        over_tls(server, ours.path, stranger)
    # Both rotate: we get a certificate of another authority, and other clients are trusted.
    strange.issue("collector", certificate)
    trusted.write_bytes(strange.path.read_bytes())
    os.utime(trusted)
    time.sleep(1.1)
    assert over_tls(server, strange.path, stranger) == 200
    with pytest.raises(OSError):
        over_tls(server, strange.path, client)
    assert len(lines(tmp_path / "events")) == 2


def test_certificates_that_cannot_be_used_are_said(tmp_path: Path) -> None:
    (tmp_path / "bad.pem").write_text("nothing")
    with pytest.raises(InputError, match="certificates cannot be used"):
        Certificates(str(tmp_path / "bad.pem"))
