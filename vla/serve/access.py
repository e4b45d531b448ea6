"""Who may use the server: the API key, and the protection against pages in a browser."""

from __future__ import annotations

import hmac
import ipaddress
import os
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Scope

from vla.errors import ConfigError

KEY = "VLA_API_KEY"  # if set, clients must send the header "Authorization: Api-Key <its value>"
PUBLIC = ("/about", "/healthz", "/health")  # paths that need no key, and GET /
# Types of posts that a browser sends to any server without asking it first.
_FORMS = ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data")


@dataclass(frozen=True)
class Access:
    """Options of ``vla serve``; names of this machine's loopback interface are always allowed."""

    hosts: tuple[str, ...] = ()  # further names by which clients may call the server
    # Origins of browser pages that may use the server, for example https://panel.example:8443.
    origins: tuple[str, ...] = ()
    network: bool = False  # the server listens beyond loopback: clients may use its IP addresses

    def problem(self, scope: Scope) -> tuple[int, str] | None:
        """HTTP status and reason if a request is refused.

        A browser sends ``Origin`` with every post and websocket of a page, and the name in the
        page's address as ``Host``, also if that name was made to point to this machine.
        """
        headers = Headers(scope=scope)
        hosts = headers.getlist("host") or [""]
        for host in hosts:
            if not self._allows_host(_host_name(host)):
                return 403, f"Host {host[:100]!r} is not allowed; use --allow-host NAME"
        for origin in headers.getlist("origin"):
            if not self._allows_origin(origin):
                return 403, f"Origin {origin[:100]!r} is not allowed; use --allow-origin ORIGIN"
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if scope["type"] == "http" and scope["method"] == "POST" and kind in _FORMS:
            return 415, f"content type {kind} is not accepted; send application/json"
        if not (_is_public(scope) or _has_key(headers)):
            return 401, "wrong or no key; send Authorization: Api-Key <key>"
        return None

    def _allows_host(self, name: str) -> bool:
        if is_loopback(name) or name in self.hosts:
            return True
        # A page's own name that points here is never an address.
        return self.network and (_is_address(name) or name == socket.gethostname().lower())

    def _allows_origin(self, origin: str) -> bool:
        scheme, _, rest = origin.partition("://")
        local = scheme in ("http", "https") and is_loopback(_host_name(rest))
        return local or origin.lower().rstrip("/") in self.origins


def check_reach(host: str, insecure: bool) -> bool:
    """True if ``host`` is beyond loopback.

    Raises:
        ConfigError: it is, and there is no API key.
    """
    if _only_loopback(host):
        return False
    if not os.environ.get(KEY) and not insecure:
        raise ConfigError(
            f"--host {host}: open to the network, and there is no API key; set the environment "
            f"variable {KEY}, or give --insecure to let everyone move the robot"
        )
    return True


def _only_loopback(host: str) -> bool:
    if is_loopback(host) or not host or _is_address(host):
        return is_loopback(host)
    try:
        found = socket.getaddrinfo(host, None)
    except OSError as error:
        raise ConfigError(f"--host {host}: no such address ({error}); try 127.0.0.1") from error
    return all(is_loopback(str(entry[4][0])) for entry in found)


def is_loopback(name: str) -> bool:
    """True for ``localhost`` and for loopback addresses."""
    if name.lower() == "localhost":
        return True
    return _is_address(name) and ipaddress.ip_address(name).is_loopback


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _host_name(host: str) -> str:
    """The name or address in ``NAME:PORT``; empty if it is invalid."""
    try:
        parts = urlsplit(f"//{host}")
        valid = parts.netloc == host and not parts.username and parts.port is not False
    except ValueError:
        return ""
    return (parts.hostname or "") if valid else ""


def _is_public(scope: Scope) -> bool:
    if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
        return False
    return scope["path"] == "/" or scope["path"] in PUBLIC


def _has_key(headers: Headers) -> bool:
    key = os.environ.get(KEY)
    sent = headers.get("authorization", "").encode("latin-1")
    return not key or hmac.compare_digest(sent, f"Api-Key {key}".encode())
