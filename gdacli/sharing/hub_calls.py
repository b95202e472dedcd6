"""Calls of the Hub: which failures pass by themselves and are tried again, and all others in one line."""

import json
import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

from gdacli.console import say
from gdacli.errors import GdaError

_WAITS = (1, 2, 4, 8)
"""Seconds before each new try; huggingface_hub's own tries wait as long."""

_LONGEST_WAIT = 300
"""A server that asks to wait longer (Retry-After, in seconds) gets no new try, the user its answer."""

_PASSING = (408, 429, 500, 502, 503, 504)

_TIMEOUT = 300
"""Seconds without a byte after which a connection counts as cut; huggingface_hub would wait without end."""

T = TypeVar("T")


@contextmanager
def calling(what: str) -> Iterator[None]:
    """Turn each failure of the Hub in this block into one line that begins with `what`; say its retries in our words.

    Raises:
        GdaError: what failed, why, and what to do.
    """
    with _own_words():
        try:
            yield
        except GdaError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno is not None and _cause(error) is error:
                raise  # of the disk, not of the Hub
            raise GdaError(f"{what}: {_explain(error)}") from error


def tried_again(call: Callable[[], T], resumes: bool = False) -> T:
    """Return what `call` returns; while it fails in a way that passes by itself, call it again, 5 times in all.

    For calls that huggingface_hub makes once alone: it repeats some itself (preupload, LFS, listing).

    Args:
        call: what asks the Hub.
        resumes: a GET goes on by itself where the connection was cut, as downloads do: that is not tried again.
    """
    for wait in _WAITS:
        try:
            return call()
        except Exception as error:
            asked = _retry_after(error)
            if not _passes(error) or (resumes and _was_resumed(error)) or (asked or 0) > _LONGEST_WAIT:
                raise
            seconds = wait if asked is None else asked
            say(f"the Hub {_short(error)}: trying again in {seconds} s")
            time.sleep(seconds)
    return call()


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status that an error or its cause is about."""
    response = getattr(_cause(error), "response", None)
    return None if response is None else int(response.status_code)


def _cause(error: BaseException) -> BaseException:
    """Return the error of the connection or the server that is behind an error, or itself."""
    from httpx2 import TransportError
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    behind: BaseException | None = error
    while behind is not None:
        if isinstance(behind, TransportError | HfHubHTTPError | OfflineModeIsEnabled):
            return behind
        behind = behind.__cause__
    return error


def _passes(error: Exception) -> bool:
    from httpx2 import TransportError
    from huggingface_hub.errors import LocalEntryNotFoundError

    if isinstance(error, GdaError | LocalEntryNotFoundError):  # the second: a download that was tried again already
        return False
    if isinstance(error, json.JSONDecodeError):  # a gateway's page in place of an answer
        return True
    return isinstance(_cause(error), TransportError) or status_of(error) in _PASSING


def _was_resumed(error: Exception) -> bool:
    """Say if huggingface_hub went on with a download after such errors, until it gave up."""
    from httpx2 import ConnectError, RemoteProtocolError, TimeoutException

    return isinstance(error, ConnectError | RemoteProtocolError | TimeoutException) and error.request.method == "GET"


def _retry_after(error: BaseException) -> int | None:
    response = getattr(_cause(error), "response", None)
    asked = "" if response is None else response.headers.get("Retry-After", "")
    return int(asked) if asked.isdecimal() else None


def _short(error: BaseException) -> str:
    status = status_of(error)
    if status is not None:
        return f"answered {status}"
    if isinstance(error, json.JSONDecodeError):
        return "answered with a page that is no answer"
    return f"cannot be reached ({type(_cause(error)).__name__})"


def _explain(error: BaseException) -> str:
    from httpx2 import TransportError
    from huggingface_hub import constants
    from huggingface_hub.errors import OfflineModeIsEnabled

    cause, status = _cause(error), status_of(error)
    tokens = f"{constants.ENDPOINT}/settings/tokens"
    again = "run the same command again, it goes on with what is missing"
    if isinstance(cause, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, so nothing may ask the Hub: unset it"
    if isinstance(cause, TransportError):
        told = " ".join(str(cause).split()) or type(cause).__name__
        return f"the connection to {constants.ENDPOINT} failed ({told}), several tries over: {again}"
    if status is None:
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    server = " ".join(str(getattr(cause, "server_message", None) or "").split())[:200]
    told = f"{status}, {server}" if server else str(status)
    if status == 401:
        return f"refused ({told}): the token is not valid here, or there is none: set HF_TOKEN to one from {tokens}"
    if status == 403:
        return f"refused ({told}): take a token that may do this, from {tokens}, or another --repo-id"
    if status == 404:
        return f"not found ({told}): check the name and the revision; what is private needs a token that may read it"
    if status in (409, 412):
        return f"somebody else changed the repository at the same time ({told}): {again}"
    if status == 429:
        asked = _retry_after(cause)
        return f"too many requests ({told}): wait {f'{asked} s' if asked else 'some minutes'}, then {again}"
    if status in _PASSING:
        return f"the Hub has a problem ({told}), several tries over: {again}"
    return f"the Hub refused it ({told})"


@cache
def keep_time() -> None:
    """Let the Hub's client give up connections that are silent for long, and try again."""
    from httpx2 import Client, Timeout
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils._http import default_client_factory

    def client() -> Client:
        made = default_client_factory()
        made.timeout = Timeout(_TIMEOUT, connect=30)
        return made

    set_client_factory(client)


_NOTICES = (
    (re.compile(r"HTTP Error (\d+) thrown"), "the Hub answered {}"),
    (re.compile(r"Rate limited\. Waiting ([\d.]+)s"), "the Hub asks to wait: trying again in {} s"),
    (re.compile(r"Retrying in ([\d.]+)s"), "trying again in {} s"),
    (re.compile(r"^'(.*)' thrown while requesting", re.DOTALL), "the Hub cannot be reached ({})"),
    (
        re.compile(r"Error while downloading from \S+: (.*?)\s*Trying to resume", re.DOTALL),
        "download cut ({}): goes on",
    ),
)
"""What huggingface_hub says of its own tries, and how we say it: its lines hold addresses that may be signed."""


class _Notices(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        for pattern, ours in _NOTICES:
            if found := pattern.search(text):
                say(ours.format(" ".join(found[1].split())))


@contextmanager
def _own_words() -> Iterator[None]:
    """Let huggingface_hub show no bars, and say of its lines only that it tries again."""
    from huggingface_hub.utils import disable_progress_bars
    from huggingface_hub.utils import logging as hub_logging

    logger = hub_logging.get_logger("huggingface_hub")
    handlers, propagate = logger.handlers, logger.propagate
    logger.handlers, logger.propagate = [_Notices()], False
    try:
        with disable_progress_bars():
            yield
    finally:
        logger.handlers, logger.propagate = handlers, propagate
