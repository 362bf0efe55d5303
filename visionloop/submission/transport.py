"""The one way of every request to a Kubeflow Pipelines server: with an end, and a second try."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kfp_server_api import rest
from kfp_server_api.exceptions import ApiException
from urllib3 import Retry, Timeout
from urllib3.exceptions import HTTPError

from visionloop.submission.refusals import LONGEST_PAUSE_S, PASSING, ServerError, not_signed_in

# Seconds to connect, and between two bytes of an answer; kfp's client would wait for ever.
TIMEOUT_S = (10, 60)
_MOST_BYTES = 4 << 20
# Repeated by urllib3: requests that change nothing or the same thing twice. A POST is repeated only
# where no connection came about; else whoever made it looks first whether it was done.
RETRIES = Retry(
    total=6,
    connect=2,
    # A certificate that is not trusted: it stays what it is.
    other=0,
    status_forcelist=PASSING,
    backoff_factor=0.2,
    backoff_max=10,
    backoff_jitter=0.2,
    raise_on_status=False,
    retry_after_max=LONGEST_PAUSE_S,
)


class Transport(rest.RESTClientObject):  # type: ignore[misc]
    """kfp's HTTP client with timeouts, retries, and a new sign-in after a 401.

    Args:
        configuration: kfp's configuration; its address, certificates and proxy are used.
        renew: Signs in anew and returns the header ``authorization``, empty where nothing new is
            to be had.
        shown: Words for the sign-in, empty where kfp finds one by itself or there is none.
    """

    def __init__(self, configuration: Any, renew: Callable[[], str], *, shown: str) -> None:
        configuration.retries = RETRIES
        super().__init__(configuration)
        self._renew, self._shown = renew, shown

    def request(
        self,
        method: str,
        url: str,
        query_params: Any = None,
        headers: dict[str, str] | None = None,
        body: Any = None,
        post_params: Any = None,
        _preload_content: bool = True,
        _request_timeout: Any = None,
    ) -> Any:
        """Send one request, and once more with a new sign-in where the first was refused.

        Args:
            method: HTTP method.
            url: The address.
            query_params: As kfp's client gives them, like the others.
            headers: With the sign-in.
            body: Sent as JSON.
            post_params: Parts of a form.
            _preload_content: Whether the answer is read at once.
            _request_timeout: Seconds; None takes ours.

        Raises:
            ServerError: The sign-in is not accepted, or a login page answered instead.
        """

        def send(shown: dict[str, str]) -> Any:
            answer = super(Transport, self).request(
                method,
                url,
                query_params=query_params,
                headers=shown,
                body=body,
                post_params=post_params,
                _preload_content=_preload_content,
                _request_timeout=_request_timeout or TIMEOUT_S,
            )
            self._refuse_login_page(answer, url)
            return answer

        given = dict(headers or {})
        try:
            # A copy: an upload changes the headers that it is given.
            return send(dict(given))
        except ApiException as error:
            if error.status != 401:
                raise
        fresh = self._renew()
        if not fresh or fresh == given.get("authorization"):
            raise not_signed_in(self._shown, url.partition("/apis/")[0])
        return send({**given, "authorization": fresh})

    def text(self, url: str, headers: dict[str, str]) -> str:
        """Return what an address outside the API answers.

        Args:
            url: The address.
            headers: Sent with the request.

        Returns:
            The text; empty where there is none to be had, for whatever reason: asked once.
        """
        try:
            answer = self.pool_manager.request(
                "GET",
                url,
                headers=headers,
                retries=False,
                timeout=Timeout(connect=TIMEOUT_S[0], read=TIMEOUT_S[1]),
                preload_content=False,
            )
            with answer:
                plain = "text/html" not in str(answer.headers.get("content-type", ""))
                text: bytes = answer.read(_MOST_BYTES, decode_content=True)
        except (HTTPError, OSError):
            return ""
        return text.decode(errors="replace") if answer.status == 200 and plain else ""

    def _refuse_login_page(self, answer: Any, url: str) -> None:
        headers = getattr(answer, "urllib3_response", answer).headers
        if "text/html" not in str(headers.get("content-type", "")):
            return
        remedy = (
            "The session may be over: sign in with a browser and set VISIONLOOP_KFP_COOKIE anew"
            if self._shown
            else "Set VISIONLOOP_KFP_COOKIE to the session cookie of your browser, or "
            "VISIONLOOP_KFP_TOKEN to a token that the proxy takes; --host ends before /apis"
        )
        raise ServerError(
            "A page for people answered instead of the API, most likely a login page",
            where=url.partition("?")[0],
            remedy=remedy,
            status=401,
        )
