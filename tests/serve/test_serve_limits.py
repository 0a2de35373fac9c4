"""Doors and limits: keys, hosts, sizes, the queue, time, clients that leave, and the end."""

import json
import socket
import threading
from dataclasses import replace

import httpx
import openai
import pytest
from serve_doubles import HTTP, PATIENCE, endless, events_of, running

from minimind.inference.backend import TokenEvent
from minimind.serve.registry import Registry
from minimind.serve.run import Listening


@pytest.fixture(scope="module")
def narrow(checkpoint_dir):
    """One slot, one place in the queue, small bodies, a key, a foreign page that may read.

    So slow that an answer of 900 tokens takes 18 seconds: it runs until the test ends it.
    """
    with running(
        checkpoint_dir, slots=1, queue=1, per_second=50, max_body=4096,
        api_keys=("right", "also-right"), cors_origins=("https://page.example",),
        allowed_hosts=frozenset({"127.0.0.1", "localhost"}),
    ) as server:  # fmt: skip
        yield server


KEY = {"Authorization": "Bearer right"}


def post(server, body, **options):
    url = server.url + "/chat/completions"
    headers = KEY | options.pop("headers", {})
    return HTTP.post(url, json=body, headers=headers, **options)


def raw_stream(server, body: dict) -> socket.socket:
    """Send a request over a bare socket, so that closing it is closing the connection."""
    content = json.dumps(body).encode()
    host, port = server.root.removeprefix("http://").split(":")
    sock = socket.create_connection((host, int(port)))
    sock.sendall(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer right\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(content) + content
    )
    return sock


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_slot(narrow, stream):
    before = narrow.stats().generated_tokens
    with raw_stream(narrow, endless(900, stream=stream)) as sock:
        narrow.wait_for(lambda stats: stats.running == 1)
        received = b""
        while stream and b"chat.completion.chunk" not in received:  # headers may come alone
            received += (piece := sock.recv(65536))
            assert piece, "the server closed the stream"
    # The slot is free a moment before the request is counted out.
    narrow.wait_for(lambda stats: stats.running == stats.waiting == narrow.server.running == 0)
    assert narrow.stats().generated_tokens - before < 900
    assert post(narrow, endless(2)).status_code == 200


def test_a_client_that_leaves_the_queue_makes_room(narrow):
    with raw_stream(narrow, endless(900)):
        narrow.wait_for(lambda stats: stats.running == 1)
        with raw_stream(narrow, endless(900, stream=True)):
            narrow.wait_for(lambda stats: stats.waiting == 1)
        narrow.wait_for(lambda stats: stats.waiting == 0)
        assert narrow.stats().running == 1
    narrow.wait_for(lambda stats: stats.running == 0)


def test_a_full_queue_is_429_with_retry_after(narrow):
    client = narrow.client(api_key="right")
    with raw_stream(narrow, endless(900)):
        narrow.wait_for(lambda stats: stats.running == 1)
        with raw_stream(narrow, endless(900)):
            narrow.wait_for(lambda stats: stats.waiting == 1)
            with pytest.raises(openai.RateLimitError) as caught:
                client.chat.completions.create(**endless(2))
            assert int(caught.value.response.headers["retry-after"]) >= 1
            assert caught.value.code == "rate_limit_exceeded"
            with pytest.raises(openai.RateLimitError):  # before the stream begins
                client.chat.completions.create(**endless(2, stream=True))
    narrow.wait_for(lambda stats: stats.running == stats.waiting == 0)
    # All answers of a request or none; what can never fit is told at once.
    assert post(narrow, endless(2, n=2)).status_code == 200
    never = post(narrow, endless(2, n=3))
    assert (never.status_code, never.json()["error"]["param"]) == (400, "n")


def test_the_client_tries_again_when_the_queue_was_full(narrow):
    first, second = raw_stream(narrow, endless(900)), raw_stream(narrow, endless(900))
    narrow.wait_for(lambda stats: stats.running == stats.waiting == 1)
    threading.Timer(0.3, lambda: (first.close(), second.close())).start()
    client = narrow.client(api_key="right", max_retries=3)
    response = client.chat.completions.create(**endless(2))
    assert response.usage.completion_tokens == 2


def test_keys(narrow):
    assert narrow.client(api_key="also-right").models.list().data[0].id == "mini"
    for key in ("wrong", "righ", "rightt"):
        with pytest.raises(openai.AuthenticationError) as caught:
            narrow.client(api_key=key).models.list()
        assert caught.value.code == "invalid_api_key"
        assert key not in caught.value.message
    odd = {"Authorization": b"Bearer \xff\xc3("}
    assert HTTP.get(narrow.url + "/models", headers=odd).status_code == 401
    for headers in ({}, {"Authorization": "right"}, {"Authorization": "Basic right"}):
        response = HTTP.get(narrow.url + "/models", headers=headers)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
    for path in ("/metrics", "/openapi.json", "/v1/none"):
        assert HTTP.get(narrow.root + path).status_code == 401
    assert HTTP.get(narrow.root + "/health").status_code == 200


def test_a_name_that_is_not_ours_is_refused(narrow):
    for host in ("evil.example", "127.0.0.1.evil.example", ""):
        response = HTTP.get(narrow.url + "/models", headers=KEY | {"Host": host})
        assert response.status_code == 403
        assert response.json()["error"]["code"] == "host_not_allowed"
    assert HTTP.get(narrow.url + "/models", headers=KEY | {"Host": "localhost:1"}).is_success


def test_pages_of_other_origins(narrow, server):
    ask = {"Origin": "https://page.example", "Access-Control-Request-Method": "POST"}
    url = "/chat/completions"
    allowed = HTTP.options(narrow.url + url, headers=ask)
    assert allowed.headers["access-control-allow-origin"] == "https://page.example"
    other = HTTP.options(narrow.url + url, headers=ask | {"Origin": "https://x.example"})
    assert "access-control-allow-origin" not in other.headers
    off = HTTP.options(server.url + url, headers=ask)
    assert (off.status_code, "access-control-allow-origin" in off.headers) == (405, False)
    refused = post(narrow, {}, headers={"Origin": "https://page.example"})
    assert refused.headers["access-control-allow-origin"] == "https://page.example"
    assert "x-request-id" in refused.headers


@pytest.mark.parametrize("size", [5000, 30_000, 3_000_000])
@pytest.mark.parametrize("chunked", [True, False])
def test_large_bodies_are_413_however_they_are_sent(narrow, size, chunked):
    body = json.dumps(endless(1, user="x" * size)).encode()

    def in_pieces():
        for start in range(0, len(body), 4000):
            yield body[start : start + 4000]

    headers = KEY | {"Content-Type": "application/json"}
    try:
        response = HTTP.post(
            narrow.url + "/chat/completions",
            content=in_pieces() if chunked else body,
            headers=headers,
        )
    except httpx.TransportError:
        assert size > 4096 * 8  # closed on a client that went on for too long
    else:
        assert response.status_code == 413
        assert response.json()["error"]["code"] == "body_too_large"
    assert post(narrow, endless(1)).status_code == 200


def test_the_client_sees_that_its_body_is_too_large(narrow):
    with pytest.raises(openai.APIStatusError) as caught:
        narrow.client(api_key="right").completions.create(model="mini", prompt="好" * 2000)
    assert caught.value.status_code == 413


def test_a_body_that_doesnt_come_is_408(checkpoint_dir):
    with (
        running(checkpoint_dir, body_timeout=0.5) as server,
        socket.create_connection(server.root.removeprefix("http://").split(":")) as sock,
    ):
        sock.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            b"Content-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
        )
        sock.settimeout(PATIENCE)
        assert sock.recv(65536).startswith(b"HTTP/1.1 408")


def test_other_types_methods_and_paths(server):
    url = server.url + "/completions"
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        response = HTTP.post(url, content=b"{}", headers={"Content-Type": kind})
        assert response.status_code == 415, kind
    zipped = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    assert HTTP.post(url, content=b"{}", headers=zipped).status_code == 415
    wrong = HTTP.get(url)
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    assert wrong.json()["error"]["code"] == "method_not_allowed"
    none = HTTP.get(server.url + "/engines")
    assert (none.status_code, none.json()["error"]["code"]) == (404, "not_found")


def test_time_is_limited(checkpoint_dir):
    with running(checkpoint_dir, slots=1, queue=4, per_second=50, request_timeout=0.4) as server:
        client = server.client(max_retries=3)  # it must not try again
        with pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(**endless(1000))
        assert (caught.value.status_code, caught.value.code) == (504, "timeout")
        assert server.server.metrics.registry.get_sample_value(
            "minimind_requests_total", {"route": "/v1/chat/completions", "status": "504"}
        ) == 1  # fmt: skip
        with pytest.raises(openai.APIError, match="longer than this server"):
            list(client.chat.completions.create(**endless(1000, stream=True)))
        server.wait_for(lambda stats: stats.running == 0)


class FailingBackend:
    """A backend that breaks after two tokens: what torch does when memory runs out."""

    kind, context_length = "failing", 64

    def __init__(self, stats):
        self.stats = stats

    def submit(self, prompt, params, on_event):
        def work():
            on_event(TokenEvent(token=70, logprob=-1.0))
            on_event(TokenEvent(end="error", error="secret: /home/me out of memory"))

        threading.Thread(target=work).start()
        return self

    def cancel(self):
        pass

    def close(self, *, drain_seconds=0.0):
        pass


def test_a_failing_backend_is_a_500_that_tells_nothing(checkpoint_dir, caplog):
    with running(checkpoint_dir) as server:
        (served,) = server.registry
        broken = FailingBackend(served.backend.stats)
        server.server.registry = Registry({"mini": replace(served, backend=broken)})
        response = post(server, endless(5))
        assert response.status_code == 500
        assert response.json()["error"]["code"] == "internal"
        with HTTP.stream(
            "POST", server.url + "/chat/completions", json=endless(5, stream=True)
        ) as stream:
            events = events_of(stream)
        assert events[-1]["error"]["code"] == "internal"
        assert "secret" not in response.text + json.dumps(events)
        assert "secret" in caplog.text
        server.server.registry = server.registry  # which the end of this block closes
        assert post(server, endless(2)).status_code == 200


def test_the_end_lets_running_requests_finish_and_takes_no_new_ones(checkpoint_dir):
    listening = Listening(drain=PATIENCE)
    with running(checkpoint_dir, slots=2, per_second=20, listening=listening) as server:
        results = []
        threads = [
            threading.Thread(target=lambda: results.append(post(server, endless(200))))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        server.wait_for(lambda stats: (stats.running, stats.waiting) == (2, 2))
        server.stop()
        server.wait_for(lambda _: server.server.status == "draining")
        late = post(server, endless(2))
        assert (late.status_code, late.json()["error"]["code"]) == (503, "shutting_down")
        assert "retry-after" in late.headers
        health = HTTP.get(server.root + "/health")
        assert (health.status_code, health.json()["status"]) == (503, "draining")
        assert server.stats().running == 2
        server.pace(1e6)
        server.join()
        for thread in threads:
            thread.join()
        assert [r.json()["usage"]["completion_tokens"] for r in results] == [200] * 4
        assert server.in_time is True


def test_the_end_has_a_limit(checkpoint_dir):
    listening = Listening(drain=0.2)
    with running(checkpoint_dir, slots=2, per_second=50, listening=listening) as server:
        client = server.client()
        stream = client.chat.completions.create(**endless(1000, stream=True))
        next(iter(stream))
        whole = []
        thread = threading.Thread(target=lambda: whole.append(post(server, endless(1000))))
        thread.start()
        server.wait_for(lambda stats: stats.running == 2)
        server.stop()
        with pytest.raises(openai.APIError, match="shut down"):
            list(stream)
        thread.join()
        assert whole[0].status_code == 503
        server.join()
        assert server.in_time is False


def test_requests_during_loading_are_503(checkpoint_dir):
    from minimind.serve.server import Server, ServeSettings

    server = Server(ServeSettings())
    error = server.refusal()
    assert error is not None
    assert (error.status, error.body["error"]["code"]) == (503, "loading")
    server.status = "draining"
    server.ready(Registry({}))  # a signal came while it was loading
    assert server.status == "draining"
