"""A TAP service asked with patience and manners, whose failures are one sentence each."""

import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

from astropy.table import Table

from xlatent.core.errors import ReadError
from xlatent.core.extras import requires_extra

_JOB_TIMEOUT = 4 * 3600.0  # seconds for a large query
_TIMEOUT = (20, 300)  # seconds to connect, and between two packets


class RefusedError(ReadError):
    """The service understood what was asked, and does not answer it."""


class TapService:
    """A service that speaks the Table Access Protocol (IVOA TAP 1.0 and 1.1), through `pyvo`.

    Parameters
    ----------
    address : str
        Its base address.
    on_status : callable
        Takes a few words on what is being waited for.
    """

    def __init__(self, address: str, on_status: Callable[[str], Any]) -> None:
        with requires_extra("csc", "pyvo"):
            import pyvo
        self.address, self._on_status = address, on_status
        self._session = _session()
        self._tap = pyvo.dal.TAPService(address, session=self._session)

    def run(self, query: str, large: bool = False) -> Table:
        """Send a query: small ones are answered at once, large ones become a job on the server.

        Parameters
        ----------
        query : str
            ADQL.
        large : bool
            Whether to make it a job (UWS).

        Returns
        -------
        astropy.table.Table
            As the service sends it.

        Raises
        ------
        RefusedError
            If the service finds fault with the query, or its job ends in an error.
        ReadError
            If it cannot be reached, fails, cuts its answer short, or does not speak TAP.
        """
        from pyvo.dal.exceptions import DALOverflowWarning

        with _translate_errors(self.address), warnings.catch_warnings(), closing(self._session):  # it opens again
            warnings.simplefilter("ignore")  # few services keep to the letter of VOTable, and the data are good
            warnings.simplefilter("error", DALOverflowWarning)
            return (self._wait_for(query) if large else self._tap.run_sync(query)).to_table()

    def _wait_for(self, query: str) -> Any:
        """Run a query as a job, look at it ever less often, and clear it away."""
        import requests
        from pyvo.dal.exceptions import DALAccessError

        job = self._tap.submit_job(query)
        try:
            job.run()
            began, pause = time.monotonic(), 0.25
            while (phase := job.phase) not in ("COMPLETED", "ERROR", "ABORTED"):
                waited = time.monotonic() - began
                if waited > _JOB_TIMEOUT:
                    raise ReadError(
                        f"{self.address}: the query is still {phase.lower()} after {waited:.0f} s; "
                        "ask for less: a cone, or stricter limits"
                    )
                self._on_status(f"the query is {phase.lower()} on the server, {waited:.0f} s")
                time.sleep(pause)
                pause = min(1.5 * pause, 30.0)
            if phase == "ABORTED":
                raise ReadError(
                    f"{self.address}: the query was stopped on the server; ask for less, or try again later"
                )
            job.raise_if_error()
            self._on_status("the answer is on its way")
            return job.fetch_result()
        finally:
            with suppress(DALAccessError, requests.RequestException):
                job.delete()


def _session() -> Any:
    """A polite HTTP session: says who asks, has time-outs, and comes back when the server asks it to."""
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    from xlatent.core.version import __version__

    class _CappedRetry(Retry):
        def get_retry_after(self, response: Any) -> float | None:
            asked = super().get_retry_after(response)
            return None if asked is None else min(float(asked), 300.0)

    class _TrackingAdapter(HTTPAdapter):
        def send(self, request: Any, *positional: Any, **named: Any) -> Any:
            named["timeout"] = named.get("timeout") or _TIMEOUT
            answers.append(super().send(request, *positional, **named))
            return answers[-1]

        def close(self) -> None:
            while answers:  # those that broke off hold their connection
                answers.pop().close()
            super().close()

    answers: list[Any] = []

    retry = _CappedRetry(
        total=None,
        connect=0,
        read=0,
        status=3,
        status_forcelist=(429, 502, 503, 504),
        allowed_methods=None,
        backoff_factor=1,
        raise_on_status=False,
    )
    session = requests.Session()
    session.headers["User-Agent"] = f"xlatent/{__version__} (Python, pyvo)"
    for scheme in ("http://", "https://"):
        session.mount(scheme, _TrackingAdapter(max_retries=retry))
    return session


@contextmanager
def _translate_errors(service: str) -> Iterator[None]:
    """Turn the many ways in which a service fails into one sentence each."""
    import requests
    import urllib3
    from pyvo.dal.exceptions import DALAccessError, DALOverflowWarning, DALQueryError

    try:
        yield
    except DALOverflowWarning:
        raise ReadError(
            f"{service} has more rows for this than it gives out at once; ask for less: a cone, or stricter limits"
        ) from None
    except DALQueryError as error:
        raise RefusedError(f"{service} refused the query: {_short(error).removeprefix('Query Error: ')}") from None
    # ValueError and the like: what the parsers of VOTable and of job descriptions make of other things.
    except (DALAccessError, requests.RequestException, urllib3.exceptions.HTTPError, ValueError, SyntaxError) as error:
        raise _as_read_error(service, getattr(error, "cause", None) or error) from None


def _as_read_error(service: str, cause: Any) -> ReadError:
    """Say what went wrong between us and the service, by the exception at its bottom."""
    import requests
    import urllib3

    response = getattr(cause, "response", None)
    if response is not None:
        code, said = response.status_code, f"HTTP {response.status_code} {response.reason}"
        if code == 400:
            return RefusedError(f"{service} refused the query ({said})")
        todo = "check the address of the service" if 400 <= code < 500 and code != 429 else "try again later"
        return ReadError(f"{service} answers {said}; {todo}")
    if isinstance(cause, requests.exceptions.InvalidURL | requests.exceptions.MissingSchema):
        return ReadError(f"{service} is no web address; give one that begins with https:// or http://")
    if isinstance(cause, requests.Timeout | urllib3.exceptions.TimeoutError):
        return ReadError(f"{service} has not answered for too long; try again later")
    if isinstance(cause, urllib3.exceptions.ProtocolError | requests.exceptions.ChunkedEncodingError):
        return ReadError(f"{service} broke off in the middle of its answer; try again later")
    if isinstance(cause, requests.ConnectionError):
        if "NameResolution" in str(cause):
            return ReadError(f"{service}: its host is not found; check the network and the address")
        # The operating system's words, from under the layers that wrap them.
        words = re.search(r"\[Errno -?\d+\] ([^'\")]+)", str(cause))
        reason = words[1].lower() if words else _short(cause)
        return ReadError(f"{service} cannot be reached ({reason}); check the network and the address")
    return ReadError(f"{service} should answer with a VOTable, and what came is none ({_short(cause)}); is it TAP?")


def _short(error: object) -> str:
    """What an error says, at a length for a sentence."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}..."
