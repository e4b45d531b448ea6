"""A stand-in for the Hugging Face hub on this machine: repositories, commits and downloads."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


class Hub:
    """Repositories by name; a repository has the files of its last commit."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.tokens: list[str | None] = []  # of all requests
        self.url = ""


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            """Nothing."""

        def reply(self, body: bytes, code: int = 200, **headers: str) -> None:
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def reply_json(self, data: Any, code: int = 200) -> None:
            self.reply(json.dumps(data).encode(), code, Content_Type="application/json")

        def missing(self) -> None:
            self.reply(b"{}", 404, X_Error_Code="RepoNotFound")

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            hub.tokens.append(self.headers.get("Authorization"))
            parts = unquote(urlsplit(self.path).path).strip("/").split("/")
            if parts[:2] == ["api", "models"]:
                files = hub.files.get("/".join(parts[2:4]))
                if files is None:
                    return self.missing()
                listed = [{"rfilename": n, "size": len(d)} for n, d in files.items()]
                if "tree" in parts:
                    tree = [
                        {"type": "file", "path": n, "size": len(d), "oid": "0"}
                        for n, d in files.items()
                    ]
                    return self.reply_json(tree)
                name = "/".join(parts[2:4])
                return self.reply_json({"id": name, "sha": "a" * 40, "siblings": listed})
            data = hub.files.get("/".join(parts[:2]), {}).get("/".join(parts[4:]))
            if data is None:
                return self.missing()
            tag = hashlib.sha256(data).hexdigest()
            self.reply(data, X_Repo_Commit="a" * 40, ETag=f'"{tag}"')

        def do_POST(self) -> None:
            hub.tokens.append(self.headers.get("Authorization"))
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = urlsplit(self.path).path.strip("/").split("/")
            if parts == ["api", "repos", "create"]:
                made = json.loads(body)
                name = f"{made['organization']}/{made['name']}"
                hub.files.setdefault(name, {})
                hub.private[name] = bool(made.get("private")) or made.get("visibility") == "private"
                return self.reply_json({"url": f"{hub.url}/{name}"})
            if parts == ["api", "validate-yaml"]:
                return self.reply_json({"errors": [], "warnings": []})
            name = "/".join(parts[2:4])
            if name not in hub.files:
                return self.missing()
            if parts[4] == "preupload":
                asked = [f["path"] for f in json.loads(body)["files"]]
                modes = [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in asked]
                return self.reply_json({"files": modes})
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    data = base64.b64decode(line["value"]["content"])
                    hub.files[name][line["value"]["path"]] = data
            self.reply_json({"commitUrl": f"{hub.url}/{name}/commit/1", "commitOid": "a" * 40})

    return Handler


@contextmanager
def running_hub() -> Iterator[Hub]:
    """The stand-in, listening on this machine."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
