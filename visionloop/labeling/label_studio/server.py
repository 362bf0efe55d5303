"""Speaks to a Label Studio server, waits while it is away, and says what its errors mean.

The SDK takes both kinds of token: one that is a JWT is a personal access token, which it exchanges
for short-lived ones, and any other is a legacy token. Its errors carry headers with a session's
cookie, so nothing of them is passed on but the status and the server's own words.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from visionloop import environment
from visionloop.errors import InputError, VisionloopError

if TYPE_CHECKING:
    from visionloop.config import LoopConfig

T = TypeVar("T")

# What the project relies on (sampling, overlap of single tasks, filters) was tried from here on.
OLDEST = (1, 20)
# Seconds for which a server that does not answer is asked again: it may be starting anew.
PATIENCE = 60.0
# Seconds for one answer; an import of many tasks is the slowest.
_TIMEOUT = 180.0
# The SDK would send a request again whose answer got lost, and so might import tasks twice.
ONCE: dict[str, Any] = {"max_retries": 0}
_AGAIN = (408, 425, 429)
# Calls that are under way together; people label meanwhile.
AT_ONCE = 4
_TOKEN = (
    "Copy a token from Label Studio's page Account & Settings (a personal access token, or a "
    "legacy token where the organization allows them) into VISIONLOOP_LABELSTUDIO_TOKEN, or the "
    "key labelstudio_token of the Secret"
)


class Unreachable(VisionloopError):
    """The server does not answer, or not to the point; whether it did the work is not known."""


class NotThere(VisionloopError):
    """The server has no such thing."""


class Server:
    """A Label Studio server.

    Args:
        url: Its address.
        token: Legacy token, or personal access token.
        patience: Seconds for which it is asked again while it does not answer.
    """

    def __init__(self, url: str, token: str, patience: float = PATIENCE) -> None:
        self.url = url.rstrip("/")
        self.patience = patience
        self._token = token
        self._made: Any = None

    @classmethod
    def of(cls, config: LoopConfig, patience: float = PATIENCE) -> Server:
        """Return the server that a configuration names.

        Args:
            config: The loop's configuration.
            patience: As in the class.

        Raises:
            InputError: No server is named, or no token was given.
        """
        url, token = config.labeling.label_studio.url, environment.labelstudio_token()
        if not url:
            raise InputError(
                "the address of the server is not known",
                where="labeling.label_studio.url",
                remedy="Set it to the address of Label Studio, as the pods reach it",
            )
        if not token:
            raise InputError("there is no token for Label Studio", where=url, remedy=_TOKEN)
        return cls(url, token, patience)

    def call(self, work: Callable[[Any], T]) -> T:
        """Return what a call gives, made again while the server does not answer.

        Args:
            work: Takes the SDK's client; must do no harm when it is done twice.

        Raises:
            InputError: The token, a right or what was sent is refused.
            NotThere: The server has no such thing.
            VisionloopError: It does not answer.
        """
        deadline, pause = time.monotonic() + self.patience, 0.5
        while True:
            try:
                return self.once(work)
            except Unreachable:
                if time.monotonic() + pause > deadline:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, 5.0)

    def once(self, work: Callable[[Any], T]) -> T:
        """Return what a call gives; as `call`, but it is made once.

        Args:
            work: Takes the SDK's client.

        Raises:
            Unreachable: The server did not answer, so that it may have done the work or not.
            InputError: The address is none, or the server refuses what was asked.
        """
        import httpx
        from label_studio_sdk.core.api_error import ApiError

        try:
            return work(self._client())
        except ApiError as error:
            raise self._meaning(error.status_code or 0, error.body) from None
        except httpx.HTTPError as error:
            raise self._unreachable(str(error) or type(error).__name__) from None
        except httpx.InvalidURL as error:
            raise InputError(
                f"no address of a server: {error}", where="labeling.label_studio.url"
            ) from None
        except json.JSONDecodeError:
            # The exchange of a personal access token reads the answer as JSON, whatever it is.
            raise self._meaning(200, "") from None

    def call_once(self, work: Callable[[Any], T], took_effect: Callable[[], T | None]) -> T:
        """Return what a call gives that must not take effect twice.

        Args:
            work: Takes the SDK's client; is told not to make its request again.
            took_effect: Returns what the call would have given where it took effect although the
                server did not say so, and null where it did not.

        Raises:
            InputError: As in `call`.
            VisionloopError: The server does not answer.
        """
        deadline = time.monotonic() + self.patience
        while True:
            try:
                return self.once(work)
            except Unreachable:
                if time.monotonic() > deadline:
                    raise
                time.sleep(1.0)
                result = took_effect()
                if result is not None:
                    return result

    def side_by_side(self, works: Iterable[Callable[[], T]]) -> list[T]:
        """Return what pieces of work give, each of which makes calls, in their order.

        A few are done at once: for much of what it does with tasks the server takes a call a task.
        The first that fails ends it, and its error is raised.

        Args:
            works: The pieces of work.
        """
        with ThreadPoolExecutor(AT_ONCE) as pool:
            begun = [pool.submit(work) for work in works]
            try:
                return [one.result() for one in begun]
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def drafts(self, task: int) -> list[dict[str, Any]]:
        """Return everybody's drafts of a task, which the SDK has no call for.

        Args:
            task: The task's id.
        """

        def ask(client: Any) -> Any:
            transport = client._client_wrapper.httpx_client
            answer = transport.request(f"api/tasks/{task}/drafts", method="GET")
            if answer.status_code == 404:
                return []
            if answer.status_code >= 300:
                raise self._meaning(answer.status_code, answer.text)
            return answer.json()

        found: list[dict[str, Any]] = self.call(ask)
        return found

    def version(self) -> str:
        """Return the server's version.

        Raises:
            InputError: It is too old.
        """
        told = self.call(lambda client: client.versions.get())
        release = str(getattr(told, "release", "") or "")
        numbers = tuple(int(part) for part in release.split(".")[:2] if part.isdigit())
        if numbers and numbers < OLDEST:
            raise InputError(
                f"Label Studio {release} is too old",
                where=self.url,
                remedy=f"Upgrade it to {'.'.join(map(str, OLDEST))} or later",
            )
        return release

    def _client(self) -> Any:
        if self._made is None:
            from label_studio_sdk import LabelStudio

            make: Any = LabelStudio
            # With the slash at its end a path in the address outlives the exchange of a token.
            self._made = make(base_url=f"{self.url}/", api_key=self._token, timeout=_TIMEOUT)
        return self._made

    def _unreachable(self, why: str) -> Unreachable:
        return Unreachable(
            f"Label Studio does not answer: {why}",
            where=self.url,
            remedy="Check that the server runs and that this machine reaches it, then run this "
            "again: it goes on where it was",
        )

    def _meaning(self, status: int, body: Any) -> VisionloopError:
        """Return the error that stands for a server's refusal."""
        words = told(body)
        if status == 401:
            return InputError(
                f"Label Studio refuses the token: {words or 'unauthorized'}",
                where=self.url,
                remedy=_TOKEN,
            )
        if status == 403:
            return InputError(
                f"Label Studio refuses this to the token's user: {words or 'forbidden'}",
                where=self.url,
                remedy="Give the token of a member of the organization that the project is in",
            )
        if status == 404:
            return NotThere(f"Label Studio has no such thing: {words}", where=self.url)
        if status >= 500 or status in _AGAIN:
            return self._unreachable(f"status {status}")
        if 200 <= status < 400 or _is_page(body):
            return VisionloopError(
                "what answers is no Label Studio, or a proxy before it",
                where=self.url,
                remedy="Set labeling.label_studio.url to the server itself, without a login page "
                "before it",
            )
        return InputError(f"Label Studio refuses the request: {words}", where=self.url)


def told(body: Any) -> str:
    """Return the words of a server's error, in a line.

    Args:
        body: Of the answer: what its JSON says, or its text.
    """
    if _is_page(body):
        return "a page of HTML"
    if not isinstance(body, Mapping):
        return " ".join(str(body or "").split())[:300]
    found = list(_leaves(body.get("validation_errors")))
    return "; ".join(found)[:600] or str(body.get("detail") or "")[:300]


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for one in value.values():
            yield from _leaves(one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _leaves(one)
    elif value:
        yield " ".join(str(value).split())


def _is_page(body: Any) -> bool:
    return isinstance(body, str) and body.lstrip()[:1] == "<"
