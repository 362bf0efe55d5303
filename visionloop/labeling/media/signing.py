"""Time-limited links to objects in Cloud Storage: V4 signed URLs.

Who signs is the service account that this process has. With its private key at hand
(``GOOGLE_APPLICATION_CREDENTIALS`` names a key file) that is done here; with Workload Identity
there is none, and Google signs (IAM's ``signBlob``, one request a link), which the account needs a
right for: ``iam.serviceAccounts.signBlob`` on itself.

A link is valid for seven days at most, which is Cloud Storage's limit. One that Google signed is
sure to be valid for twelve hours only: its key rotates, and a link may end with it
(https://cloud.google.com/storage/docs/authentication/creating-signatures).
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from visionloop import environment
from visionloop.errors import InputError, VisionloopError
from visionloop.lake.storage.interface import stored_generation

if TYPE_CHECKING:
    from google.cloud import storage as gcs

RIGHT = "iam.serviceAccounts.signBlob"
LONGEST_HOURS = 168.0
# For which a link that Google signed is sure to be valid.
SURE_HOURS = 12.0
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_IAM = "https://iamcredentials.googleapis.com"
_THREADS = 8
_OTHERWISE = "or set labeling.label_studio.media to endpoint, which needs no signature of Google's"


@dataclass(frozen=True)
class Wanted:
    """An object that is to be linked.

    Attributes:
        uri: ``gs://…``.
        generation: Of the object, as a listing had it; empty for whichever lies there. A link to a
            generation leads to no other: an object that was overwritten is not shown.
        content_type: That the answer shall have, whatever was stored with the object.
    """

    uri: str
    generation: str = ""
    content_type: str = ""


class Signer:
    """Signs links as the service account that this process has.

    Attributes:
        account: E-mail address of the account.
        by_google: Google signs: a link is sure to be valid for `SURE_HOURS` only.

    Raises:
        InputError: It has no account that can sign.
        VisionloopError: Google does not tell.
    """

    def __init__(self) -> None:
        import google.auth
        from google.auth.credentials import Signing
        from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
        from google.oauth2.service_account import Credentials

        try:
            found, _ = google.auth.default(scopes=[_SCOPE])
            self._credentials: Any = found
            if isinstance(found, Signing):
                self.account = str(found.signer_email or "")
            else:
                self.account = _account_of(found)
        except DefaultCredentialsError as error:
            raise InputError(
                "no Google credentials were found to sign links to images with",
                where="labeling.label_studio.media",
                remedy="Give the pod a service account with Workload Identity, or name a service "
                f"account's key file in GOOGLE_APPLICATION_CREDENTIALS, {_OTHERWISE}",
            ) from error
        except GoogleAuthError as error:
            raise VisionloopError(
                f"Google does not tell whose credentials these are: {error}",
                remedy="Check that the metadata server answers, and run this again",
            ) from error
        if not self.account or "@" not in self.account:
            raise InputError(
                f"links to images cannot be signed with {type(found).__module__} credentials, "
                "which belong to no service account",
                where="labeling.label_studio.media",
                remedy="Take a service account: gcloud auth application-default login "
                f"--impersonate-service-account=ACCOUNT, {_OTHERWISE}",
            )
        self.by_google = not isinstance(found, Credentials)
        self._bucket_client = _client()

    def sign(self, wanted: Iterable[Wanted], hours: float) -> list[str]:
        """Return a link to each object, in their order.

        Args:
            wanted: The objects.
            hours: For which a link is valid, `LONGEST_HOURS` at most.

        Raises:
            InputError: The account may not sign.
            VisionloopError: Google does not answer.
        """
        lifetime = timedelta(hours=min(hours, LONGEST_HOURS))
        signing = self._signing()

        def one(thing: Wanted) -> str:
            bucket, _, name = thing.uri[len("gs://") :].partition("/")
            generation = stored_generation(thing.generation)
            link: str = (
                self._bucket_client.bucket(bucket)
                .blob(name)
                .generate_signed_url(
                    version="v4",
                    expiration=lifetime,
                    credentials=signing,
                    generation=generation if generation.isdigit() else None,
                    response_type=thing.content_type or None,
                    response_disposition="inline",
                )
            )
            return link

        if not self.by_google:
            return [one(thing) for thing in wanted]
        with ThreadPoolExecutor(_THREADS) as pool:
            return list(pool.map(one, wanted))

    def _signing(self) -> Any:
        from google.auth.credentials import Signing
        from google.oauth2.service_account import Credentials

        if isinstance(self._credentials, Credentials):
            return self._credentials
        credentials, account = self._credentials, self.account

        class ByGoogle(Signing):
            """What the client asks for a signature."""

            signer_email = account
            signer = None

            def sign_bytes(self, message: bytes) -> bytes:
                return _sign_blob(credentials, account, message)

        return ByGoogle()


def _client() -> gcs.Client:
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage as gcs

    # It asks Google nothing: a link is made of the object's name.
    anonymous = AnonymousCredentials()  # type: ignore[no-untyped-call]
    return gcs.Client("unused", credentials=anonymous)


def _account_of(credentials: Any) -> str:
    """Return a service account's address; of a metadata server it is known once it was asked."""
    from google.auth.transport.requests import Request

    account = str(getattr(credentials, "service_account_email", "") or "")
    if account and "@" not in account:
        credentials.refresh(Request())
        account = str(credentials.service_account_email or "")
    return account


def _sign_blob(credentials: Any, account: str, message: bytes) -> bytes:
    from google.auth.exceptions import GoogleAuthError
    from google.auth.transport.requests import AuthorizedSession
    from requests import RequestException

    host = environment.google_apis() or _IAM
    url = f"{host}/v1/projects/-/serviceAccounts/{account}:signBlob"
    try:
        with AuthorizedSession(credentials) as session:  # type: ignore[no-untyped-call]
            _try_again(session)
            answer = session.post(
                url, json={"payload": base64.b64encode(message).decode()}, timeout=30
            )
    except (GoogleAuthError, RequestException) as error:
        raise VisionloopError(
            f"Google does not sign: {error}", where=url, remedy="Run this again"
        ) from error
    if answer.ok:
        return base64.b64decode(answer.json()["signedBlob"])
    raise _refused(account, url, answer.status_code, answer.text)


def _try_again(session: Any) -> None:
    """Have a request that meets a busy server made again; it changes nothing there."""
    from requests.adapters import HTTPAdapter
    from urllib3.util.retry import Retry

    again = Retry(total=4, backoff_factor=0.5, status_forcelist=(429, 500, 502, 503, 504),
                  allowed_methods=None, raise_on_status=False)  # fmt: skip
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(max_retries=again))


def _refused(account: str, url: str, status: int, text: str) -> VisionloopError:
    said = " ".join(text.split())[:300]
    if "SERVICE_DISABLED" in text or "has not been used in project" in text:
        return InputError(
            "Google signs no links, since the IAM Service Account Credentials API is off",
            where=account,
            remedy=f"gcloud services enable iamcredentials.googleapis.com, {_OTHERWISE}",
        )
    if status in (401, 403, 404):
        return InputError(
            f"the account lacks {RIGHT} on itself, so that no link to an image can be signed: "
            f"{said}",
            where=account,
            remedy=f"gcloud iam service-accounts add-iam-policy-binding {account} --member "
            f"serviceAccount:{account} --role roles/iam.serviceAccountTokenCreator, {_OTHERWISE}",
        )
    return VisionloopError(f"Google does not sign ({status}): {said}", where=url)
