"""Looks things up on a server, page by page."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

_PAGE = 100


def by_name(name: str) -> str:
    """Return the filter that a list takes for things of one name.

    Args:
        name: The display name.
    """
    predicate = {"operation": "EQUALS", "key": "display_name", "string_value": name}
    return json.dumps({"predicates": [predicate]})


def pages(ask: Callable[..., Any], field: str, **query: Any) -> Iterator[Any]:
    """Yield every thing of a list.

    Args:
        ask: A list method of kfp's client.
        field: Attribute of its answer that holds the things.
        **query: What is asked for.

    Yields:
        The things, in the server's order.
    """
    token = ""
    while True:
        answer = ask(page_size=_PAGE, page_token=token, **query)
        yield from getattr(answer, field) or []
        token = answer.next_page_token or ""
        if not token:
            return
