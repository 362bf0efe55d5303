"""What a client shows a Kubeflow Pipelines server to prove who asks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visionloop import environment
from visionloop.errors import InputError


@dataclass(frozen=True)
class Access:
    """A way to sign in. The first that is set counts: token, token file, cookie.

    With none of them kfp's own ways are left: the identity-aware proxy that
    ``KF_PIPELINES_IAP_OAUTH2_CLIENT_ID`` names, the cluster that this process runs in, or the one
    that kubectl speaks to.

    Attributes:
        token: A bearer token.
        token_file: File with one; read anew for each request, since projected tokens rotate.
        cookie: A session cookie as ``name=value``, of a login page before the server.
        ca_file: Certificate authority of the server, where it is not a public one.
    """

    token: str = ""
    token_file: str = ""
    cookie: str = ""
    ca_file: str = ""

    @classmethod
    def from_environment(cls) -> Access:
        """Return what this process was given.

        Raises:
            InputError: A token file was named, and is not there; or a cookie has no name.
        """
        path = environment.kfp_token_file()
        there = Path(path).is_file()
        if environment.names_kfp_token_file() and not there:
            raise InputError(
                "the file with the token is not there",
                where=path,
                remedy="Mount the token there, or correct VISIONLOOP_KFP_TOKEN_FILE",
            )
        cookie = environment.kfp_cookie()
        if cookie and not cookie.partition("=")[1]:
            raise InputError(
                "the session cookie has no name",
                where="VISIONLOOP_KFP_COOKIE",
                remedy="Give name=value, for example authservice_session=VALUE",
            )
        return cls(
            token=environment.kfp_token(),
            token_file=path if there else "",
            cookie=cookie,
            ca_file=environment.kfp_ca_file(),
        )

    @property
    def words(self) -> str:
        """Words for what is shown, without its value; empty where that is left to kfp."""
        if self.token:
            return "the token"
        if self.token_file:
            return f"the token in {self.token_file}"
        if self.cookie:
            return f"the session cookie {self.cookie.partition('=')[0]}"
        return ""

    def options(self) -> dict[str, Any]:
        """Return the arguments of `kfp.Client` that say the same.

        Raises:
            InputError: The certificate authority's file is not there.
        """
        from kfp.client import ServiceAccountTokenVolumeCredentials

        options: dict[str, Any] = {}
        if self.token:
            options["existing_token"] = self.token
        elif self.token_file:
            # With a host kfp does not use the pod's own token unless it is told to.
            options["credentials"] = ServiceAccountTokenVolumeCredentials(path=self.token_file)
        elif self.cookie:
            options["cookies"] = self.cookie
        if self.ca_file:
            if not Path(self.ca_file).is_file():
                raise InputError(
                    "the certificate authority's file is not there",
                    where=self.ca_file,
                    remedy="Correct --ca-file or VISIONLOOP_KFP_CA_FILE",
                )
            options["ssl_ca_cert"] = self.ca_file
        return options
