"""Who may use the server: pages in a browser, the network, and signals that end it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import msgpack
import pytest

pytest.importorskip("starlette")
from fake_policies import SummingPolicy
from protocol_clients import IMAGE, decoded, encoded, service_of, wire
from server_processes import free_port
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect
from websockets.sync.client import connect

from vla.errors import ConfigError
from vla.serve.access import KEY
from vla.serve.server import Listening, all_protocols, make_app

# Starlette's test client emits deprecation warnings
pytestmark = pytest.mark.filterwarnings("default")
BODY = {"image": encoded(IMAGE), "instruction": "go"}


def client(listening: Listening | None = None) -> TestClient:
    access = (listening or Listening()).access()
    app = make_app(service_of(SummingPolicy()), all_protocols(), access=access)
    return TestClient(app, base_url="http://localhost:8000")


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("Host", "localhost", 200),
        ("Host", "127.0.0.1:8000", 200),
        ("Host", "[::1]:8000", 200),
        ("Host", "evil.example", 403),
        ("Host", "localhost.evil.example:8000", 403),
        ("Host", "192.168.1.7:8000", 403),
        ("Host", "127.0.0.1@evil.example", 403),
        ("Host", "", 403),
        ("Origin", "http://localhost:3000", 200),
        ("Origin", "http://127.0.0.1", 200),
        ("Origin", "https://evil.example", 403),
        ("Origin", "http://localhost.evil.example", 403),
        ("Origin", "http://evil.example#localhost", 403),
        ("Origin", "null", 403),
        ("Origin", "file://", 403),
        ("Content-Type", "text/plain", 415),
        ("Content-Type", "Text/Plain; charset=utf-8", 415),
        ("Content-Type", "application/x-www-form-urlencoded", 415),
        ("Content-Type", "multipart/form-data; boundary=x", 415),
        ("Content-Type", "application/json; charset=utf-8", 200),
    ],
)
def test_a_page_in_a_browser_cannot_use_the_server(name: str, value: str, status: int) -> None:
    headers = {"Host": "localhost", name: value}
    with client() as http:
        assert http.post("/act", json=BODY, headers=headers).status_code == status
        if name == "Content-Type":
            return
        if status == 200:
            with http.websocket_connect("/", headers=headers) as ws:
                assert ws.receive_bytes()
        else:
            for path in ("/", "/vla-eval"):
                with (
                    pytest.raises(WebSocketDisconnect),
                    http.websocket_connect(path, headers=headers),
                ):
                    pass
            assert http.get("/about", headers=headers).status_code == 403


def test_named_hosts_and_origins_are_allowed() -> None:
    origin, host = "https://panel.example:8443", "robot.local"
    listening = Listening(allow_host=("Robot.local",), allow_origin=(f"{origin}/",))
    with client(listening) as http:
        headers = {"Origin": origin, "Host": f"{host}:8000"}
        reply = http.post("/act", json=BODY, headers=headers)
        assert decoded(reply.json())[0] == 100
        assert reply.headers["access-control-allow-origin"] == origin
        asked = headers | {
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization, content-type",
        }
        assert http.options("/act", headers=asked).status_code == 200
        asked["Origin"] = "https://evil.example"
        assert http.options("/act", headers=asked).status_code == 400
        other = {"Origin": "https://panel.example"}
        assert http.post("/act", json=BODY, headers=other).status_code == 403


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", ""])
def test_the_network_needs_a_key(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY, raising=False)
    with pytest.raises(ConfigError, match=f"set the environment variable {KEY}, or give --insec"):
        Listening(host).access()
    assert Listening(host, insecure=True).access().network
    monkeypatch.setenv(KEY, "secret")
    with client(Listening(host)) as http:
        key = {"Authorization": "Api-Key secret"}
        for name, status in (("192.168.1.7:8000", 200), ("evil.example", 403)):
            headers = key | {"Host": name}
            assert http.post("/act", json=BODY, headers=headers).status_code == status
        own = {"Host": socket.gethostname()}
        assert http.post("/act", json=BODY, headers=own).status_code == 401


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.1.2.3"])
def test_loopback_needs_no_key(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY, raising=False)
    assert not Listening(host).access().network


_SERVER = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from fake_policies import SummingPolicy
import vla.serve.server as server
from vla.cli.boundary import run

class Slow(SummingPolicy):
    calls = 0
    def predict(self, *given, **options):
        self.calls += 1
        if self.calls > 1:
            end = time.monotonic() + 60
            while time.monotonic() < end:
                time.sleep(0.01)
        return super().predict(*given, **options)

server.open_policy = lambda *given: Slow()
listening = server.Listening(port=int(sys.argv[1]))
run(lambda: server.run_server(Path("policy"), None, {}, ["state"], "cpu", listening=listening))
"""


@pytest.mark.slow
def test_signals_end_the_server_within_two_seconds() -> None:
    """Connections are open, one request runs, and others wait."""
    numbers, tests = (signal.SIGINT, signal.SIGTERM), str(Path(__file__).parent)
    with ExitStack() as stack:
        servers = []
        for number in numbers:
            port = free_port()
            command = [sys.executable, "-c", _SERVER, str(port), tests]
            server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
            stack.callback(server.communicate)
            stack.callback(server.kill)
            servers.append((number, port, server))
        for number, port, server in servers:
            wait_for(port, server)
            took, errors = ended_by(number, port, server)
            assert took < 2 and "Traceback" not in errors
            assert server.returncode == (130 if number == signal.SIGINT else -signal.SIGTERM)


def wait_for(port: int, server: subprocess.Popen[str]) -> None:
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            assert server.poll() is None
            time.sleep(0.1)


def ended_by(number: int, port: int, server: subprocess.Popen[str]) -> tuple[float, str]:
    """Seconds until a server with connections and requests ends, and its error messages."""
    url = f"ws://127.0.0.1:{port}/"
    with connect(url) as one, connect(url) as two, connect(url) as idle:
        for connection in (one, two, idle):
            connection.recv()
        for connection in (one, two):
            connection.send(msgpack.packb({"image": wire(IMAGE), "prompt": "go"}))
        with socket.create_connection(("127.0.0.1", port)) as half:
            half.sendall(b"POST /act HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n")
            time.sleep(0.5)
            start = time.monotonic()
            server.send_signal(number)
            _, errors = server.communicate(timeout=10)
            return time.monotonic() - start, errors
