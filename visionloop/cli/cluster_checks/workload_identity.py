"""Signs in at Google as a Kubernetes service account, as GKE's metadata server does for pods."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from visionloop import environment
from visionloop.errors import VisionloopError

if TYPE_CHECKING:
    from visionloop.cluster import Cluster

GOOGLE_ACCOUNT = "iam.gke.io/gcp-service-account"
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
# Who issues the tokens of a GKE cluster; the project is that of the workload pool.
_GKE = re.compile(r"https://container\.googleapis\.com/v1/projects/([^/]+)/")
_SECONDS = 10.0


class Unknown(VisionloopError):
    """It cannot be told from here what an account may do."""


@dataclass(frozen=True)
class Identity:
    """Who an account is at Google.

    Attributes:
        member: Its name in the policy of a bucket.
        token: Its access token; empty where Google refuses it.
        refused: Why Google refuses it.
        remedy: What to do then.
    """

    member: str
    token: str = ""
    refused: str = ""
    remedy: str = ""


def sign_in(cluster: Cluster, account: str, namespace: str, google: str) -> Identity:
    """Sign in as a service account.

    Args:
        cluster: The cluster.
        account: The Kubernetes service account.
        namespace: Its namespace.
        google: The Google service account that it acts as; empty: it acts as itself.

    Returns:
        Who it is, or why it is refused.

    Raises:
        Forbidden: Its tokens may not be asked for.
        Unknown: The cluster is not on GKE, or Google does not answer.
    """
    issuer = _claims(_own_token(cluster, account, namespace)).get("iss", "")
    project = _GKE.match(issuer)
    if not project:
        raise Unknown(
            f"the cluster's tokens are of {issuer}, not of GKE",
            remedy="`visionloop doctor --lake` in a pod of the account tells",
        )
    pool = f"{project[1]}.svc.id.goog"
    status, answer = _post(
        "https://sts.googleapis.com",
        "/v1/token",
        {
            "grantType": "urn:ietf:params:oauth:grant-type:token-exchange",
            "audience": f"identitynamespace:{pool}:{issuer}",
            "scope": _SCOPE,
            "requestedTokenType": "urn:ietf:params:oauth:token-type:access_token",
            "subjectToken": _own_token(cluster, account, namespace, pool),
            "subjectTokenType": "urn:ietf:params:oauth:token-type:jwt",
        },
    )
    member = (
        f"principal://iam.googleapis.com/projects/PROJECT_NUMBER/locations/global/"
        f"workloadIdentityPools/{pool}/subject/ns/{namespace}/sa/{account}"
    )
    if status != 200:
        return Identity(
            member,
            refused=f"Google does not know the workload pool {pool} ({_told(status, answer)})",
            remedy="Switch Workload Identity on: gcloud container clusters update CLUSTER "
            f"--workload-pool={pool}",
        )
    token = str(answer.get("access_token", ""))
    if not google:
        return Identity(member, token)
    status, answer = _post(
        "https://iamcredentials.googleapis.com",
        f"/v1/projects/-/serviceAccounts/{quote(google, safe='@')}:generateAccessToken",
        {"scope": [_SCOPE], "lifetime": "600s"},
        token,
    )
    if status != 200:
        return Identity(
            f"serviceAccount:{google}",
            refused=f"may not act as {google} ({_told(status, answer)})",
            remedy=f"gcloud iam service-accounts add-iam-policy-binding {google} "
            "--role=roles/iam.workloadIdentityUser "
            f'--member="serviceAccount:{pool}[{namespace}/{account}]"',
        )
    return Identity(f"serviceAccount:{google}", str(answer.get("accessToken", "")))


def missing_rights(identity: Identity, bucket: str, rights: tuple[str, ...]) -> list[str]:
    """Return which rights an account lacks in a bucket.

    Args:
        identity: The account, signed in.
        bucket: Name of the bucket.
        rights: Google's names of the rights.

    Raises:
        VisionloopError: There is no such bucket.
        Unknown: The bucket does not tell.
    """
    query = urlencode([("permissions", right) for right in rights])
    status, answer = _send(
        "GET",
        "https://storage.googleapis.com",
        f"/storage/v1/b/{quote(bucket)}/iam/testPermissions?{query}",
        None,
        identity.token,
    )
    if status == 404:
        raise VisionloopError(
            "there is no such bucket",
            where=f"gs://{bucket}",
            remedy=f"gcloud storage buckets create gs://{bucket}, or correct its name",
        )
    if status in (401, 403):
        # Who has none of the rights is refused the question itself.
        return list(rights)
    if status != 200:
        raise Unknown(f"gs://{bucket} does not tell ({_told(status, answer)})", remedy="Try again")
    held = answer.get("permissions") or []
    return [right for right in rights if right not in held]


def _own_token(cluster: Cluster, account: str, namespace: str, audience: str = "") -> str:
    """Return a token of a service account, good for ten minutes; by default for the API server."""
    wanted: dict[str, Any] = {"expirationSeconds": 600}
    wanted |= {"audiences": [audience]} if audience else {}
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": wanted}
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
    answer = json.loads(cluster.transport.request("POST", path, body=json.dumps(body).encode()))
    return str(answer["status"]["token"])


def _post(host: str, path: str, body: dict[str, Any], token: str = "") -> tuple[int, Any]:
    return _send("POST", host, path, body, token)


def _send(method: str, host: str, path: str, body: Any, token: str) -> tuple[int, dict[str, Any]]:
    import urllib3

    headers = {"Content-Type": "application/json", "User-Agent": "visionloop"}
    headers |= {"Authorization": f"Bearer {token}"} if token else {}
    url = f"{environment.google_apis() or host}{path}"
    try:
        answer = urllib3.PoolManager().request(
            method,
            url,
            body=None if body is None else json.dumps(body).encode(),
            headers=headers,
            timeout=_SECONDS,
            retries=False,
        )
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise Unknown(
            f"{urllib3.util.parse_url(url).host} does not answer: {type(error).__name__}",
            remedy="Ask from a machine that reaches Google's APIs",
        ) from None
    if answer.status == 429 or answer.status >= 500:
        raise Unknown(f"Google answers {answer.status}", remedy="Try again later")
    try:
        found = json.loads(answer.data or b"{}")
    except ValueError:
        found = {}
    return answer.status, found if isinstance(found, dict) else {}


def _told(status: int, answer: dict[str, Any]) -> str:
    error = answer.get("error")
    message = error.get("message") if isinstance(error, dict) else answer.get("error_description")
    return f"{status}: {message}" if message else str(status)


def _claims(token: str) -> dict[str, str]:
    middle = token.split(".")[1] if token.count(".") == 2 else ""
    try:
        found = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)) or b"{}")
    except ValueError:
        found = {}
    return found if isinstance(found, dict) else {}
