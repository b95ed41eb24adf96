"""Without a key of the server's no path but health answers; keys are told nowhere."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx
import openai
import pytest
from command_line import lostwax, one_sentence
from fake_runtime import FakeRuntime
from http_server import running

from lostwax.server.engine.loop import EngineCore
from lostwax.server.gateway.api_keys import MAX_KEY_CHARS, BadKey, digests_of, read_keys
from lostwax.server.gateway.app import create_app
from lostwax.server.gateway.in_process import InProcessEngine
from lostwax.server.gateway.settings import Settings
from lostwax.server.gateway.tls import Tls
from lostwax.server.gateway.tokenizer import IdCodec

KEYS = ("sk-first-key", "sk-second-key")
PAGE = "https://page.example"


@contextmanager
def served(keys: tuple[str, ...] = KEYS) -> Generator[str]:
    engine = InProcessEngine(EngineCore(FakeRuntime()))
    settings = Settings(key_digests=digests_of(keys), metrics=True, allowed_origins=(PAGE,))
    with running(create_app(engine, IdCodec(), settings)) as url:
        yield url


@pytest.fixture(scope="module")
def url() -> Generator[str]:
    with served() as found:
        yield found


def paths(url: str) -> list[tuple[str, str]]:
    """Every route of the application, and one that is none."""
    headers = {"authorization": f"Bearer {KEYS[0]}"}
    document = httpx.get(f"{url}/openapi.json", headers=headers).json()
    found = [(method, path) for path, item in document["paths"].items() for method in item]
    assert len(found) > 9
    return [
        *found,
        ("get", "/openapi.json"),
        ("get", "/v2"),
        ("get", "/Health"),
        ("get", "/health/"),
    ]


def test_the_api_description_says_that_keys_are_asked_for(url: str) -> None:
    headers = {"authorization": f"Bearer {KEYS[0]}"}
    document = httpx.get(f"{url}/openapi.json", headers=headers).json()
    schemes = document["components"]["securitySchemes"]
    either = [schemes[next(iter(scheme))] for scheme in document["security"]]
    assert [scheme.get("scheme") or scheme["name"] for scheme in either] == ["bearer", "X-Api-Key"]
    routes = [(path, route) for path, item in document["paths"].items() for route in item.values()]
    assert [path for path, route in routes if route.get("security") == []] == ["/health"]
    engine = InProcessEngine(EngineCore(FakeRuntime()))
    assert "security" not in create_app(engine, IdCodec(), Settings()).openapi()


def test_every_path_but_health_needs_a_key(url: str) -> None:
    for method, path in paths(url):
        wanted = 200 if path == "/health" else 401
        answer = httpx.request(method, url + path, json={} if method == "post" else None)
        assert answer.status_code == wanted, path
        if wanted == 401:
            error = answer.json()["error"]
            if path.startswith("/v1/messages"):
                assert error["type"] == "authentication_error"
            elif path.startswith("/api/"):
                assert error.startswith("an API key is needed")
            else:
                assert error["type"] == "invalid_request_error"
                assert error["code"] == "invalid_api_key"
            assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (f"Bearer {KEYS[0]}", 200),
        (f"bearer {KEYS[1]}", 200),
        (f"Bearer  {KEYS[1]}", 200),
        (KEYS[0], 401),
        (f"Basic {KEYS[0]}", 401),
        ("Bearer", 401),
        (f"Bearer {KEYS[0]}x", 401),
        (f"Bearer {KEYS[0][:-1]}", 401),
        (f"Bearer {KEYS[0]}, {KEYS[1]}", 401),
        (f"Bearer {KEYS[0].upper()}", 401),
        ("Bearer \xe9", 401),
    ],
)
def test_only_a_whole_key_is_taken(url: str, given: str, status: int) -> None:
    answer = httpx.get(f"{url}/v1/models", headers=[(b"authorization", given.encode("latin-1"))])
    assert answer.status_code == status


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({"x-api-key": KEYS[0]}, 200),
        ({"x-api-key": KEYS[0], "authorization": "Bearer other"}, 200),
        ({"x-api-key": "", "authorization": f"Bearer {KEYS[0]}"}, 200),
        ({"x-api-key": f"Bearer {KEYS[0]}"}, 401),
        ({"x-api-key": KEYS[0][:-1]}, 401),
        ({"x-api-key": "", "authorization": ""}, 401),
    ],
)
def test_a_key_may_come_as_anthropics_clients_send_it(
    url: str, given: dict[str, str], status: int
) -> None:
    assert httpx.get(f"{url}/v1/models", headers=given).status_code == status


def test_openais_client_is_told_as_by_openai(url: str) -> None:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key=KEYS[1])
    assert client.models.list().data
    with pytest.raises(openai.AuthenticationError) as refused:
        client.with_options(api_key="sk-other").models.list()
    assert refused.value.code == "invalid_api_key"
    assert "sk-other" not in str(refused.value)


def test_a_page_that_may_use_the_server_may_ask_first_without_a_key(url: str) -> None:
    ask = {"origin": PAGE, "access-control-request-method": "POST"}
    asked = httpx.options(
        f"{url}/v1/completions",
        headers=ask | {"access-control-request-headers": "authorization"},
    )
    assert asked.status_code == 200
    assert "authorization" in asked.headers["access-control-allow-headers"]
    refused = httpx.get(f"{url}/v1/models", headers={"origin": PAGE})
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == PAGE


def test_without_keys_none_is_asked_for() -> None:
    with served(()) as url:
        assert httpx.get(f"{url}/v1/models").status_code == 200


def test_a_file_holds_a_key_a_line(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"{KEYS[0]}\n\n  {KEYS[1]}\r\n")
    assert read_keys(path) == list(KEYS)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no key"),
        (b"\n \n", "holds no key"),
        (b"secret\ntwo words\n", "line 2 of"),
        (b"secret\n\xff\n", "line 2 of"),
        (b"x" * (MAX_KEY_CHARS + 1), "line 1 of"),
        (b"secret\n" * 20_000, "bytes, and at most 65536 are read"),
    ],
)
def test_a_file_that_holds_something_else_is_refused_without_its_words(
    content: bytes, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "keys"
    path.write_bytes(content)
    with pytest.raises(BadKey, match=said) as refused:
        read_keys(path)
    assert not re.search("secret|two words", str(refused.value))


def test_a_key_that_no_header_carries_is_refused_and_not_repeated(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, _, err = lostwax(capsys, "serve", "--api-key", "two words")
    assert status == 1
    assert one_sentence(err).startswith("lostwax: --api-key must be 1 to 512 visible ASCII")
    assert "two words" not in err


def test_a_host_that_others_reach_is_allowed_with_a_key(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    listened: list[bool] = []

    def may_listen(host: str, port: int, *, insecure: bool = False) -> None:
        listened.append(insecure)
        raise KeyboardInterrupt

    monkeypatch.setattr("lostwax.server.gateway.serve.require_may_listen", may_listen)
    lostwax(capsys, "serve", "--host", "0.0.0.0")
    lostwax(capsys, "serve", "--host", "0.0.0.0", "--api-key", KEYS[0])
    assert listened == [False, True]


def test_settings_hold_no_key() -> None:
    settings = Settings(key_digests=digests_of(KEYS))
    assert not any(key in repr(settings) for key in KEYS)


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    name = ["-nodes", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    try:
        subprocess.run(
            [*made, *name, "-keyout", key, "-out", cert], check=True, capture_output=True
        )
    except FileNotFoundError:
        pytest.skip("openssl, which makes the certificate, is not here")
    return cert, key


def test_tls_answers_and_streams_to_who_trusts_the_certificate(
    certificate: tuple[Path, Path],
) -> None:
    cert, key = certificate
    app = create_app(InProcessEngine(EngineCore(FakeRuntime())), IdCodec(), Settings())
    with running(app, tls=Tls(cert, key)) as url:
        assert url.startswith("https://")
        body = {"prompt": [3, 1], "max_tokens": 5, "stream": True, "ignore_eos": True}
        trust = ssl.create_default_context(cafile=str(cert))
        with httpx.Client(base_url=url, verify=trust, timeout=20) as client:
            answer = client.post("/v1/completions", json=body)
            assert answer.text.endswith("data: [DONE]\n\n")
            long = client.post("/v1/completions", json=body | {"user": "x" * 500, "echo": False})
            assert long.status_code == 200
            document = client.get("/openapi.json")  # more than one record of TLS
            assert len(document.content) > 2**14
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/health")
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(url.replace("https", "http") + "/health")


def test_a_handshake_that_does_not_come_is_closed(certificate: tuple[Path, Path]) -> None:
    app = create_app(InProcessEngine(EngineCore(FakeRuntime())), IdCodec(), Settings())
    with running(app, head_deadline_s=0.3, tls=Tls(*certificate)) as url:
        place = httpx.URL(url)
        with socket.create_connection((place.host, place.port or 0), timeout=10) as raw:
            assert raw.recv(1) == b""


def test_files_that_are_no_certificate_are_refused_before_a_compile(
    certificate: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cert, key = certificate
    other, locked = tmp_path / "other.pem", tmp_path / "locked.pem"
    other.write_text("no certificate")
    subprocess.run(
        ["openssl", "ec", "-aes256", "-passout", "pass:abc", "-in", key, "-out", locked],
        check=True,
        capture_output=True,
    )
    for line in (
        ("--ssl-certfile", other),
        ("--ssl-certfile", cert),  # without its key
        ("--ssl-certfile", cert, "--ssl-keyfile", other),
        ("--ssl-certfile", cert, "--ssl-keyfile", locked),
    ):
        status, _, err = lostwax(capsys, "serve", *line)
        assert status == 1
        assert "no certificate with its key, without a password, as PEM" in one_sentence(err)
    status, _, err = lostwax(capsys, "serve", "--ssl-keyfile", key)
    assert (status, "goes with --ssl-certfile" in err) == (1, True)
