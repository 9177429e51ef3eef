"""Files from http(s) addresses, gone on with where an earlier download stopped."""

from __future__ import annotations

import base64
import http.client
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from email.message import Message
from typing import IO, Any

from edge_conflayers.errors import one_line
from edge_conflayers.hub.partial import Partial
from edge_conflayers.hub.progress import Reporter
from edge_conflayers.hub.room import check_room
from edge_conflayers.hub.route import RouteFailed

CONNECT_SECONDS = 5.0
"""To wait for a server before it counts as out of reach. Not tuned: a machine without a network
goes on to the next route after it."""
_READ_SECONDS = 30.0  # a transfer that stalls for so long is begun again where it was; not tuned
_TRIES = 5  # transfers that bring nothing before it is given up; not tuned
_CHUNK = 1 << 20
_SHA256 = re.compile("[0-9a-f]{64}")
_BASE64 = r"([A-Za-z0-9+/]{43}=)"
_DIGESTS = {
    "Repr-Digest": re.compile(rf"sha-256=:{_BASE64}:"),
    "Digest": re.compile(rf"(?i:sha-256)={_BASE64}"),
    "x-amz-checksum-sha256": re.compile(rf"^{_BASE64}$"),
    "X-Checksum-Sha256": re.compile(r"^([0-9a-f]{64})$"),
}
_TRANSIENT = (408, 429, 500, 502, 503, 504)


class Url:
    """The route by an address.

    Args:
        url: http or https.
        headers: sent with it, but not to another host that it redirects to.
        title: what people call the route.
    """

    def __init__(
        self, url: str, headers: Mapping[str, str] | None = None, title: str = "download"
    ) -> None:
        self.title = title
        self._url = url
        self._headers = dict(headers or {})

    def fetch(self, partial: Partial, report: Reporter) -> None:
        """See ``Route``. Where the file's identity is not known yet, it is what the server says of
        it: a strong ETag, or the time of its last change."""
        if partial.parts:
            partial.parts, partial.source = 0, ""  # the bytes of wheels are as good
        fruitless = 0
        while True:
            before = partial.length
            try:
                with self._open(partial) as answer:
                    self._receive(answer, partial, report)
                return
            except urllib.error.HTTPError as error:
                if error.code == 416 and partial.length:
                    partial.restart()  # the file has become shorter
                elif error.code not in _TRANSIENT:
                    raise RouteFailed(_refusal(error)) from error
                why = _refusal(error)
            except urllib.error.URLError as error:
                if before == 0:
                    raise RouteFailed(_unreachable(error.reason)) from error
                why = _unreachable(error.reason)
            except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
                why = f"the connection broke ({one_line(error) or type(error).__name__})"
            fruitless = 0 if partial.length > before else fruitless + 1
            if fruitless >= _TRIES:
                raise RouteFailed(f"{why}; try again later, what is there is kept")
            time.sleep(0.2 * 2**fruitless)

    def _open(self, partial: Partial) -> Any:
        headers = {"User-Agent": "edge-conflayers", "Accept-Encoding": "identity", **self._headers}
        if partial.length:
            headers["Range"] = f"bytes={partial.length}-"
            # A server's own validator: of a SHA-256 it need not have heard.
            if partial.identity is not None and not _SHA256.fullmatch(partial.identity):
                headers["If-Range"] = partial.identity
        request = urllib.request.Request(self._url, headers=headers)
        return _opener.open(request, timeout=CONNECT_SECONDS)

    def _receive(self, answer: Any, partial: Partial, report: Reporter) -> None:
        _allow_stalls(answer)
        headers = answer.headers
        begin, size = 0, _number(headers.get("Content-Length"))
        if answer.status == 206:
            ranges = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", ""))
            if ranges is None:
                raise RouteFailed("the server answers with a range that it does not name")
            begin, size = int(ranges[1]), _number(ranges[2])
        if begin != partial.length:
            partial.restart()
            if begin:
                raise http.client.HTTPException("the server answers with another range")
        if headers.get_content_type() == "text/html":
            raise RouteFailed("the server answers with a web page; check the address")
        _learn(partial, headers, size, report)
        check_room(partial)
        report("downloading", partial.length)
        try:
            partial.append(_chunks(answer), report)
        finally:
            if partial.identity is not None:
                partial.checkpoint()
        if partial.file.size is not None and partial.length < partial.file.size:
            raise http.client.IncompleteRead(b"", partial.file.size - partial.length)


class _KeepSecrets(urllib.request.HTTPRedirectHandler):
    """Follows redirects, without taking authorization along to another host."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None and _host(newurl) != _host(req.full_url):
            request.headers.pop("Authorization", None)
            request.headers.pop("Cookie", None)
        return request


_opener = urllib.request.build_opener(_KeepSecrets)


def _host(url: str) -> tuple[str, str]:
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.netloc


def _learn(partial: Partial, headers: Message, size: int | None, report: Reporter) -> None:
    """Takes over what the server says of the file and is not known yet."""
    digest = _told_sha256(headers)
    partial.expect(size, digest)
    report.total = partial.file.size
    if partial.identity is None:
        etag = headers.get("ETag", "")
        strong = etag if etag and not etag.startswith("W/") else None
        partial.identity = strong or headers.get("Last-Modified")


def _told_sha256(headers: Message) -> str | None:
    """The file's SHA-256 in hexadecimal, where a server tells it (RFC 9530, RFC 3230, Amazon S3,
    Artifactory)."""
    for name, pattern in _DIGESTS.items():
        found = pattern.search(headers.get(name, ""))
        if found is not None:
            return found[1] if len(found[1]) == 64 else base64.b64decode(found[1]).hex()
    return None


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None


def _allow_stalls(answer: Any) -> None:
    """Gives a connection that stands more time than one that is being made."""
    raw = getattr(getattr(answer, "fp", None), "raw", None)
    connection = getattr(raw, "_sock", None)
    if connection is not None:
        connection.settimeout(_READ_SECONDS)


def _chunks(answer: Any) -> Iterator[bytes]:
    # read1, so that what has arrived is written although the rest does not come.
    while chunk := answer.read1(_CHUNK):
        yield chunk


def _refusal(error: urllib.error.HTTPError) -> str:
    what = f"{_host(error.url)[1]} answers HTTP {error.code} ({error.reason})"
    if error.code in (401, 403):
        return f"{what}: it is not for everybody; download it by hand and give the file"
    if error.code in (404, 410):
        return f"{what}: there is no such file; check the address"
    return what


def _unreachable(reason: object) -> str:
    return f"it cannot be reached ({one_line(reason)}); check the address and the network"
