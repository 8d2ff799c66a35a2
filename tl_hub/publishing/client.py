"""The Hub's API, whose calls are asked again while they fail in passing."""

import itertools
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx2
from huggingface_hub import HfApi, get_session
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from tl_hub.errors import RunStopped, UserError, first_line
from tl_hub.hub import NO_ANSWER

FAILURES = (HfHubHTTPError, httpx2.TransportError, OSError)  # the last also where the client finds a size that is wrong
_T = TypeVar("_T")
_PASSING = (408, 429, 500, 502, 503, 504)
_LONGEST_PAUSE = 60.0
_LONGEST_WAIT = 600.0


@dataclass(frozen=True)
class Patience:
    """How long a call that fails in passing is repeated.

    Attributes:
        attempts: calls in all.
        wait: seconds before the second call; doubled each time, and up to half is added by chance.
        timeout: seconds without a sign of the server after which a call has failed.
    """

    attempts: int = 7
    wait: float = 1.0
    timeout: float = 120.0


class Client:
    """Calls about one repository. Those that fail in passing are repeated as long as its patience lasts."""

    def __init__(self, repo: str, patience: Patience, say: Callable[[str], None]):
        self.repo, self.patience, self.say = repo, patience, say
        self.api = HfApi()

    def ask(self, doing: str, call: Callable[[], _T]) -> _T:
        """The answer of a call that may be made twice."""
        for attempt in itertools.count(1):
            self.set_timeout()
            try:
                return call()
            except (*FAILURES, *NO_ANSWER, RuntimeError) as error:  # the last is all that Xet says of a download
                self.pause(doing, error, attempt)
        raise AssertionError

    def set_timeout(self) -> None:
        get_session().timeout = httpx2.Timeout(self.patience.timeout)

    def pause(self, doing: str, error: Exception, attempt: int) -> None:
        """Wait before the next attempt.

        Raises:
            UserError: the Hub has answered, and would answer the same again.
            RunStopped: it was the last attempt.
        """
        if isinstance(error, OfflineModeIsEnabled):
            raise UserError(f"{doing}: HF_HUB_OFFLINE is set; unset it, and give the same command again") from error
        response = error.response if isinstance(error, HfHubHTTPError) else None
        if response is not None and response.status_code not in _PASSING:
            raise UserError(f"{doing}: {self._refusal(error)}") from error
        refused = re.search(r"HTTP status client error \((\d+)", str(error))  # all that Xet tells is in its text
        if response is None and refused and int(refused[1]) not in _PASSING:
            raise UserError(
                f"{doing}: the Hub refuses the transfer by Xet ({first_line(error)}); check the token's rights, or set"
                " HF_HUB_DISABLE_XET=1"
            ) from error
        reason = f"the Hub answered {response.status_code}" if response is not None else first_line(error)
        if isinstance(error, NO_ANSWER):
            reason = f"what answers is not the Hub ({type(error).__name__}: {first_line(error)})"
        seconds = min(self.patience.wait * 2 ** (attempt - 1), _LONGEST_PAUSE) * random.uniform(1, 1.5)
        if response is not None:
            seconds = max(seconds, _asked_to_wait(response))
        if attempt == self.patience.attempts or seconds > _LONGEST_WAIT:
            asked = f" and asks to wait for {seconds / 60:.0f} min" if seconds > _LONGEST_WAIT else ""
            raise RunStopped(
                f"{doing}: {reason}{asked} (attempt {attempt}); nothing is lost, give the same command again later",
                exit_code=1,
            ) from error
        self.say(f"{doing}: {reason}; again in {seconds:.0f} s (attempt {attempt + 1} of {self.patience.attempts})")
        time.sleep(seconds)

    def _refusal(self, error: Any) -> str:
        says = error.server_message or first_line(error)
        ways = {
            401: "the Hub does not accept the token; `hf auth login` sets another",
            403: "the token may not do this; make one that may write at https://huggingface.co/settings/tokens",
            404: f"{self.repo}, or what was asked of it, is not there or not for this token to see; check the names",
            409: "the name is taken, or another change is under way; give another name, or the same command again",
            413: "a file is too large for the Hub; save the weights in smaller shards",
            422: "the Hub refuses what was sent; correct what it names",
        }
        return f"{ways.get(error.response.status_code, 'the Hub refuses it')} ({error.response.status_code}: {says})"


@contextmanager
def timeouts() -> Iterator[None]:
    """huggingface_hub waits without an end; its client is shared, so what it had is given back."""
    before = get_session().timeout
    try:
        yield
    finally:
        get_session().timeout = before


@contextmanager
def still_done(done: str) -> Iterator[None]:
    """Whatever fails in it, what was done before stays done, and the message says so."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{done}, but not all that was asked for is done: {error}") from error
    except RunStopped as error:
        raise RunStopped(f"{done}, but not all that was asked for is done: {error}", error.exit_code) from error


def _asked_to_wait(response: httpx2.Response) -> float:
    """Seconds that the Hub asks for, in the header of the standard or in that of its rate limits."""
    found = re.fullmatch(r"\d+", response.headers.get("Retry-After", "")) or re.search(
        r"\br=0;t=(\d+)", response.headers.get("RateLimit", "")
    )
    return float(found[found.lastindex or 0]) if found else 0.0
