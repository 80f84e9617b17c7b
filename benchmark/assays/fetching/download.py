"""One file over HTTP: a transfer that breaks off resumes where it stopped.

What has arrived is in a ``.part`` file, and next to it what the server reported about the whole file (validator, size),
so that the rest is asked for only of the very same file (RFC 9110, sections 13.1.5 If-Range and 14 Range).
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from rich.filesize import decimal

from benchmark.base.errors import MorphobenchError
from benchmark.base.files import read_json, write_json

#: Asked for, or sizes and ranges would mean compressed bytes.
PLAIN = {"Accept-Encoding": "identity"}
#: A transfer that gained this many bytes before it broke off counts as progress: attempts are counted from 0 again.
GAIN = 1 << 20
GO_ON = "Run the same command again: it resumes from there."


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server.

    Attributes
    ----------
    connect, read : float
        Seconds to connect, and without a byte.
    tries : int
        Attempts in a row without progress.
    pause : float
        Seconds before the second try; doubles each time.
    chunk : int
        Bytes read at a time: the most that a break can cost.
    """

    connect: float = 20.0
    read: float = 60.0
    tries: int = 5
    pause: float = 1.0
    chunk: int = 1 << 16

    @property
    def timeout(self) -> tuple[float, float]:
        """As requests wants it."""
        return self.connect, self.read


class StandstillError(MorphobenchError):
    """A failure that every other download would meet too: no network, no server, no disk."""


class Stopped(Exception):
    """The work was asked to stop; never reaches the user."""


class _Broken(Exception):
    """This attempt is over; another one may do better."""


def remote_size(url: str, patience: Patience, stop: threading.Event | None = None) -> int | None:
    """Size in bytes of what is at ``url`` as HEAD gives it, or None where the server does not say.

    Raises
    ------
    StandstillError
        The server cannot be reached.
    """
    stop = stop or threading.Event()
    for attempt in range(1, patience.tries + 1):
        if stop.is_set():
            raise Stopped
        try:
            answer = requests.head(url, headers=PLAIN, timeout=patience.timeout, allow_redirects=True)
            if answer.status_code < 500:
                break
        except requests.RequestException as error:
            if attempt == patience.tries:
                raise _unreachable(url, error) from error
        stop.wait(patience.pause * 2 ** (attempt - 1))
    else:
        return None
    length = answer.headers.get("Content-Length", "")
    plain = answer.headers.get("Content-Encoding", "identity") == "identity"
    return int(length) or None if answer.ok and plain and length.isdecimal() else None


class Resume:
    """A downloader for `pooch.retrieve` that resumes: pooch's own starts a file of gigabytes anew after each break.

    Parameters
    ----------
    part : Path
        Where bytes are gathered; stays when the download fails, and is removed when it succeeds.
    patience : Patience
        Time limits and tries.
    stop : threading.Event
        Once set, `Stopped` is raised with the next piece.
    advance : callable
        Called with the bytes gained (negative where a transfer starts again).
    size : int, optional
        Bytes that HEAD promised.
    most : int
        More bytes than this are refused.
    remedy : str
        What to do about an address that does not exist.
    """

    def __init__(self, part: Path, patience: Patience, stop: threading.Event, advance: Callable[[int], None],
                 size: int | None = None, most: int = 1 << 40, remedy: str = "") -> None:
        self.part, self.beside = part, part.with_name(part.name + ".json")
        self.patience, self.stop, self.advance = patience, stop, advance
        self.size, self.most, self.remedy = size, most, remedy
        self._have = 0
        self._opened = False
        self._reason: Exception = Stopped()

    def __call__(self, url: str, output_file: Any, pooch: Any, check_only: bool = False) -> None:
        """Bring ``url`` to the path ``output_file``, whole.

        Raises
        ------
        MorphobenchError
            The address does not exist, the file is absurdly large, or attempt after attempt broke off.
        StandstillError
            The server cannot be reached.
        """
        self._have = self.part.stat().st_size if self.part.exists() else 0
        self.advance(self._have)
        best, failures = self._have, 0
        while not self._attempt(url):
            failures = 1 if self._have >= best + GAIN else failures + 1
            best = max(best, self._have)
            if failures >= self.patience.tries:
                raise self._failed(url)
            self.stop.wait(self.patience.pause * 2 ** (failures - 1))
        with self.part.open("rb+") as whole:
            os.fsync(whole.fileno())
        self.part.replace(output_file)
        self.beside.unlink(missing_ok=True)

    def _attempt(self, url: str) -> bool:
        """One try; whether the file is whole now. Why not stays in ``_reason``."""
        if self.stop.is_set():
            raise Stopped
        self._opened = False
        try:
            self._receive(url)
            return True
        except (_Broken, requests.RequestException) as error:
            self._reason = error
            return False

    def _failed(self, url: str) -> MorphobenchError:
        if not self._opened and isinstance(self._reason, requests.ConnectionError):
            return _unreachable(url, self._reason)
        return MorphobenchError(f"the transfer broke off {self.patience.tries} times in a row, last because "
                                f"{_short(self._reason)}; {decimal(self._have)} are here", url, GO_ON)

    def _receive(self, url: str) -> None:
        known = self._known(url)
        if self._have and known.get("total") == self._have:
            return self._check_size()
        headers = dict(PLAIN)
        if self._have and known:
            headers |= {"Range": f"bytes={self._have}-", "If-Range": known["validator"]}
        else:
            self._discard()
        with requests.get(url, headers=headers, stream=True, timeout=self.patience.timeout) as answer:
            self._opened = True
            if answer.status_code == 416:
                return self._nothing_left(answer)
            total = self._begin(url, answer, known)
            with self.part.open("ab") as out:
                for chunk in answer.iter_content(self.patience.chunk):
                    if self.stop.is_set():
                        raise Stopped
                    out.write(chunk)
                    self._have += len(chunk)
                    self.advance(len(chunk))
                    if self._have > self.most:
                        raise MorphobenchError(f"sends more than {self.most} bytes, more than is accepted", url,
                                               "Check the address.")
        if total is not None and self._have != total:
            raise _Broken(f"{self._have} of {total} bytes arrived")
        self._check_size()

    def _begin(self, url: str, answer: requests.Response, known: dict[str, Any]) -> int | None:
        """Judge the head of an answer; leaves a part file that its body continues. Gives the size of the whole."""
        status = answer.status_code
        if status >= 500 or status in (408, 429):
            raise _Broken(f"the server answers {status} {answer.reason}")
        if status not in (200, 206):
            raise MorphobenchError(f"the server answers {status} {answer.reason}", url, self.remedy)
        if answer.headers.get("Content-Encoding", "identity") != "identity":
            raise _Broken("the server compresses though asked not to")
        validator = _validator(answer)
        if status == 206:
            span = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("Content-Range", ""))
            same = validator in ("", known.get("validator"))
            if not (span and same and int(span[1]) == self._have and known.get("total") in (None, int(span[2]))):
                self._discard()
                raise _Broken("the server sends another part than the one asked for")
            return int(span[2])
        self._discard()
        length = answer.headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() else None
        if validator:
            write_json(self.beside, {"url": url, "validator": validator, "total": total})
        return total

    def _nothing_left(self, answer: requests.Response) -> None:
        """416: either everything is here, or the file on the server became shorter."""
        span = re.fullmatch(r"bytes \*/(\d+)", answer.headers.get("Content-Range", ""))
        if not (span and int(span[1]) == self._have):
            self._discard()
            raise _Broken("the file on the server is shorter than what had come")
        self._check_size()

    def _check_size(self) -> None:
        if self.size is not None and self._have != self.size:
            have = self._have
            self._discard()
            raise _Broken(f"the server promised {self.size} bytes and sent {have}")

    def _known(self, url: str) -> dict[str, Any]:
        """What the server reported when the part was begun; empty where it does not match."""
        if not self.beside.exists():
            return {}
        try:
            known = read_json(self.beside)
        except MorphobenchError:
            return {}
        if not isinstance(known, dict) or known.get("url") != url or not isinstance(known.get("validator"), str):
            return {}
        total = known.get("total")
        return known if total is None or (isinstance(total, int) and total >= self._have) else {}

    def _discard(self) -> None:
        self.advance(-self._have)
        self._have = 0
        self.part.parent.mkdir(parents=True, exist_ok=True)
        self.part.write_bytes(b"")
        self.beside.unlink(missing_ok=True)


def _validator(answer: requests.Response) -> str:
    """What If-Range takes: a strong ETag, else the date of last change."""
    tag = answer.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified", "")


def _short(error: Exception) -> str:
    """A reason without the layers of libraries around it."""
    text = str(error)
    if isinstance(error, requests.Timeout) or "timed out" in text:
        return "nothing arrived for too long"
    if isinstance(error, requests.exceptions.ChunkedEncodingError | requests.ConnectionError):
        return "the connection was cut"
    return text


def _unreachable(url: str, error: Exception) -> StandstillError:
    why = str(error.args[0].reason) if error.args and hasattr(error.args[0], "reason") else str(error)
    return StandstillError(f"cannot be reached ({why})", url,
                           "Check the network and MORPHOBENCH_BBBC_URL, and run the same command again.")
