"""Files from web servers: http and https, in only."""

from __future__ import annotations

import base64
import functools
import http.client
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from mpitask._version import __version__
from mpitask.staging import transfer
from mpitask.staging.base import FetchStaging, InTask, SeparateTask
from mpitask.staging.transfer import ATTEMPTS, PAUSE_S, TIMEOUT_S, Failure, check_limits, check_most, download

_CHUNK_BYTES = 1 << 18
_BUSY = frozenset({408, 425, 429})
_NEVER = frozenset({501, 505})


def fetch(
    url: str,
    local_path: str,
    *,
    timeout_s: float = TIMEOUT_S,
    attempts: int = ATTEMPTS,
    pause_s: float = PAUSE_S,
    verify: bool | str = True,
    max_bytes: int | None = None,
) -> str:
    """Downloads a file; runs on a worker.

    Redirects and the proxy variables of the environment are followed, and `user:password@` in the URL is sent as basic
    authentication, to that host only. Tried again after lost connections, time-outs, bodies shorter than announced and
    the statuses 408, 425, 429 and 5xx (but 501 and 505), with the pause that the server asks for, up to 30 s.

    Args:
        url: what to download.
        local_path: where to; replaced in one step.
        timeout_s: how long the server may be silent, in seconds.
        attempts: how often it is tried.
        pause_s: the pause before the second try, in seconds; it doubles each time, up to 30 s.
        verify: True: the certificate must be one that the system trusts; a path: a file or folder of certificates to
            trust instead; False: any certificate will do.
        max_bytes: a larger file is refused, as soon as the server says its size or has sent so much; None: any size.

    Returns:
        `local_path`.

    Raises:
        StagingError: it did not succeed; nothing of it is left.
        ConfigurationError: a limit is out of its range.
    """
    check_limits(attempts, pause_s, timeout_s)
    check_most("max_bytes", max_bytes)

    def write(temporary: Path) -> None:
        request = _request(url)
        opener = _opener(verify)
        try:
            with opener.open(request, timeout=timeout_s) as response, temporary.open("xb") as out:
                announced_bytes: int | None = response.length
                received_bytes = 0
                _check_size(announced_bytes or 0, max_bytes)
                while chunk := response.read(_CHUNK_BYTES):
                    received_bytes += len(chunk)
                    _check_size(received_bytes, max_bytes)
                    out.write(chunk)
        except urllib.error.HTTPError as error:
            with error:
                raise _from_status(error) from error
        except urllib.error.URLError as error:
            raise _from_reason(error.reason) from error
        except ssl.SSLError as error:
            raise _from_reason(error) from error
        except http.client.InvalidURL as error:
            raise Failure(f"this is not a URL: {error}", "correct it") from error
        except http.client.HTTPException as error:
            raise Failure(f"the server broke off: {error!r}", "see to the server", transient=True) from error
        if announced_bytes is not None and received_bytes < announced_bytes:
            raise Failure(
                f"the server sent {received_bytes} of {announced_bytes} bytes", "see to the server", transient=True
            )

    return download(url, local_path, write, attempts=attempts, pause_s=pause_s)


def _check_size(size_bytes: int, max_bytes: int | None) -> None:
    if max_bytes is not None and size_bytes > max_bytes:
        raise Failure(f"the file has more than {max_bytes:,} bytes", "if that is right, give a larger max_bytes")


def _request(url: str) -> urllib.request.Request:
    try:
        parts = urlsplit(url)
        user, at, host = parts.netloc.rpartition("@")
        request = urllib.request.Request(urlunsplit(parts._replace(netloc=host, fragment="")))
    except ValueError as error:
        raise Failure(f"this is not a URL: {error}", "correct it") from error
    request.add_header("User-Agent", f"mpitask/{__version__}")
    if at:
        token = base64.b64encode(unquote(user).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {token}")
    return request


@functools.cache
def _system_context(check: bool) -> ssl.SSLContext:
    """Reading all that the system trusts takes longer than many a download: once per process."""
    context = ssl.create_default_context()
    if not check:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _context(verify: bool | str) -> ssl.SSLContext:
    if isinstance(verify, bool):
        return _system_context(verify)
    try:
        if Path(verify).is_dir():
            return ssl.create_default_context(capath=verify)
        return ssl.create_default_context(cafile=verify)
    except OSError as error:
        raise Failure(f"verify={verify!r} has no certificates: {error}", "give a PEM file or a folder") from error


def _opener(verify: bool | str) -> urllib.request.OpenerDirector:
    """An opener for http and https and nothing else, wherever redirects lead to."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(context=_context(verify)),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def _from_status(error: urllib.error.HTTPError) -> Failure:
    cause = f"the server answered {error.code} {error.reason}"
    if error.code in _BUSY or (error.code >= 500 and error.code not in _NEVER):
        asked = error.headers.get("Retry-After", "")
        wait_s = float(asked) if asked.isascii() and asked.isdigit() else 0.0
        return Failure(cause, "try again later", transient=True, wait_s=wait_s)
    if error.code in (401, 403, 407):
        return Failure(cause, "see whether the file may be read with the credentials in the URL")
    return Failure(cause, "see whether the URL is right")


def _from_reason(reason: str | BaseException) -> Failure:
    if isinstance(reason, ssl.SSLCertVerificationError):
        return Failure(
            f"the certificate of the server is not trusted ({reason.verify_message})",
            "give verify='/path/of/certificates.pem' to trust others than the system, or verify=False to trust any",
        )
    if isinstance(reason, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return Failure("the connection was cut", "see to the server", transient=True)
    if isinstance(reason, OSError):
        return transfer.from_os_error(reason)
    return Failure(str(reason), "see whether the URL is right")


class _HTTPStaging(FetchStaging):
    def __init__(
        self,
        *,
        timeout_s: float = TIMEOUT_S,
        attempts: int = ATTEMPTS,
        verify: bool | str = True,
        max_bytes: int | None = None,
    ) -> None:
        check_limits(attempts, PAUSE_S, timeout_s)
        check_most("max_bytes", max_bytes)
        fetch_so = functools.partial(fetch, timeout_s=timeout_s, attempts=attempts, verify=verify, max_bytes=max_bytes)
        super().__init__({"http", "https"}, fetch_so)


class HTTPSeparateTaskStaging(SeparateTask, _HTTPStaging):
    """Downloads from http and https servers, each by a task of its own, into a folder that all nodes share.

    Args:
        timeout_s: how long the server may be silent, in seconds.
        attempts: how often a download is tried.
        verify: which certificates are trusted; see `fetch`.
        max_bytes: larger files are refused; None: they may fill the disk.

    Raises:
        ConfigurationError: a value is out of its range.
    """


class HTTPInTaskStaging(InTask, _HTTPStaging):
    """Downloads from http and https servers inside the task that needs the file: nodes need not share a folder.

    Takes what `HTTPSeparateTaskStaging` takes.
    """
