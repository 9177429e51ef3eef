"""A server on this machine that answers as Hugging Face does, as far as downloads ask."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

COMMIT = "0" * 40


@dataclass
class FakeHub:
    """What the server has, and what it was asked.

    Attributes:
        files: content by "org/repo/file".
        token: what "org/private" wants; "org/gated" always refuses.
        broken_after: bytes of a body after which each connection breaks once more.
        breaks: how many connections break so.
        status: answered to everything if set.
        tell_hash: say the SHA-256 as the ETag.
        ranges: honour ranges.
        asked: (method, path, range) in order.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    token: str = "hf_right"
    broken_after: int = 0
    breaks: int = 0
    status: int = 0
    tell_hash: bool = True
    ranges: bool = True
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    authorized: list[bool] = field(default_factory=list)
    url: str = ""
    cdn: str = ""

    def gets(self) -> list[str | None]:
        """The ranges of the downloads."""
        return [
            wanted for method, path, wanted in self.asked if method == "GET" and "api" not in path
        ]


@contextmanager
def serving() -> Iterator[FakeHub]:
    """The hub and, at another port, the host that its large files are redirected to."""
    hub = FakeHub()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            hub.asked.append((self.command, self.path, self.headers.get("Range")))
            if hub.status:
                return self._refuse(hub.status, "")
            if match := re.fullmatch(
                r"/api/models/([^/]+/[^/]+)(?:/revision/[^?]+)?(\?.*)?", self.path
            ):
                return self._list(match[1])
            match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path)
            if match is None:
                plain = self.path.lstrip("/")
                if plain in hub.files:
                    return self._send(hub.files[plain], body)
                return self._refuse(404, "")
            if self._may(match[1]):
                name = f"{match[1]}/{match[3]}"
                if name not in hub.files:
                    return self._refuse(404, "EntryNotFound")
                self._redirect(name)

        def _may(self, repo: str) -> bool:
            given = self.headers.get("Authorization")
            if repo == "org/gated":
                self._refuse(403, "GatedRepo")
            elif repo == "org/private" and given != f"Bearer {hub.token}":
                self._refuse(401, "RepoNotFound")
            elif not any(name.startswith(f"{repo}/") for name in hub.files):
                self._refuse(404, "RepoNotFound")
            else:
                return True
            return False

        def _list(self, repo: str) -> None:
            if not self._may(repo):
                return
            siblings = [
                {
                    "rfilename": name.removeprefix(f"{repo}/"),
                    "size": len(content),
                    "lfs": {"size": len(content), "sha256": sha256(content), "pointerSize": 130},
                }
                for name, content in hub.files.items()
                if name.startswith(f"{repo}/")
            ]
            about = {"id": repo, "modelId": repo, "sha": COMMIT, "siblings": siblings}
            data = json.dumps(about).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            # A pull may have been ended.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.wfile.write(data)

        def _redirect(self, name: str) -> None:
            content = hub.files[name]
            self.send_response(302)
            self.send_header("Location", f"{hub.cdn}/{name}")
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("X-Linked-Size", str(len(content)))
            self.send_header("X-Linked-ETag", f'"{sha256(content)}"')
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _send(self, content: bytes, body: bool) -> None:
            hub.authorized.append("Authorization" in self.headers)
            etag = f'"{sha256(content)[:16]}"'
            begin = 0
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
            if asked and hub.ranges and self.headers.get("If-Range") in (None, etag):
                begin = int(asked[1])
                if begin >= len(content):
                    return self._refuse(416, "")
                self.send_response(206)
                self.send_header(
                    "Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}"
                )
            else:
                self.send_response(200)
            self.send_header("ETag", etag)
            if hub.tell_hash:
                self.send_header("X-Checksum-Sha256", sha256(content))
            self.send_header("Content-Length", str(len(content) - begin))
            self.end_headers()
            if body:
                data = content[begin:]
                if hub.breaks:
                    hub.breaks -= 1
                    data = data[: hub.broken_after]
                    self.close_connection = True
                self.wfile.write(data)

        def _refuse(self, status: int, code: str) -> None:
            self.send_response(status)
            if code:
                self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    servers = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) for _ in range(2)]
    threads = [threading.Thread(target=server.serve_forever, args=(0.02,)) for server in servers]
    for thread in threads:
        thread.start()
    hub.url, hub.cdn = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
        for thread in threads:
            thread.join()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
