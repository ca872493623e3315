"""What strangers try on the page's server: nothing runs, nothing is read, nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import struct
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from jupyter_server.services.kernels.connection.base import serialize_msg_to_ws_v1
from PIL import Image
from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest
from tornado.websocket import websocket_connect

from icon_classifier.errors import DeploymentError, UnsupportedImageError
from icon_classifier.server.messages import PROTOCOL
from icon_classifier.server.visitor import Visit
from tests.hostile import LONG
from tests.support.models import write_model
from tests.support.pictures import encode
from tests.support.servers import ROOT, Server, project_copy, voila

SECRET = "the owner's own"
NOBODYS = "57a71480-bc76-4ce7-88de-1c1e51bbdc49"
"""The id of no kernel; the same in each worker, as it stands in the names of tests."""
PHOTO = encode(Image.new("RGB", (32, 32), "red"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with things beside the page that are nobody's business."""
    folder = project_copy(tmp_path_factory.mktemp("colours"))
    write_model(folder)
    for name in ("export.pkl.sha256", "train.ipynb", ".git/config", "icon_classifier/model.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(SECRET)
    (folder.parent / "outside.txt").write_text(SECRET)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with voila(folder, "--VisitorKernelManager.leave_timeout=2") as running:
        yield running
        assert "Traceback" not in running.text, running.text


@pytest.fixture
async def visit(server: Server) -> Any:
    async with await Visit.open(server.url) as visit:
        yield visit


def is_whole(answer: bytes) -> bool:
    """Whether an answer has the length that it announces; the connection may be left open."""
    head, end, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"\r\nContent-Length: (\d+)", head)
    return bool(end and length and len(body) >= int(length[1]))


def ask(server: Server, line: str, *headers: str, body: bytes = b"") -> tuple[int, bytes]:
    """Send a request exactly as it is written; return the status and the answer."""
    address = urlsplit(server.url)
    head = [f"{line} HTTP/1.1", f"Host: {address.netloc}", "Connection: close", *headers]
    with socket.create_connection((address.hostname, address.port), timeout=60) as line_:
        line_.sendall("\r\n".join([*head, "", ""]).encode() + body)
        answer = b""
        while not is_whole(answer) and (piece := line_.recv(2**16)):
            answer += piece
    return int(answer.split(b" ", 2)[1]), answer


async def is_well(visit: Visit) -> None:
    """The page goes on as if nothing had been."""
    said = await visit.classify(PHOTO)
    assert said.startswith("Prediction: ")


FILES = (
    *("export.pkl.sha256", "export.onnx", "train.ipynb", "icon_classifier.ipynb", "voila.json"),
    *(".git/config", "icon_classifier/model.py", "../outside.txt", "..%2foutside.txt"),
    *("%2e%2e/outside.txt", "favicon.ico/../export.onnx", "favicon.ico%2f..%2fexport.onnx"),
    *("%00favicon.ico", "/etc/passwd"),
)
ROUTES = (
    *("/", "/voila/files/", "/voila/static/", "/voila/templates/", "/voila/templates/slim/static/"),
    *("/voila/templates/lab/static/", "/voila/templates/../static/", "/voila/labextensions/"),
    *("/voila/api/themes/", "/voila/render/", "/voila/tree/", "/voila/api/contents/"),
    *("/api/contents/", "/files/", "/static/", "/tree/", "/notebooks/", "/kernelspecs/python3/"),
    *("/nbextensions/", "/voila/static/../../../../../../../../../..", "/voila/static/%2e%2e/"),
)


def test_no_address_serves_a_file_of_the_project(server: Server) -> None:
    for route in ROUTES:
        for file in FILES:
            status, answer = ask(server, f"GET {route}{file}")
            assert status in (400, 403, 404), (route, file, answer)
            assert SECRET.encode() not in answer
            assert b"root:" not in answer


@pytest.mark.parametrize(
    "path",
    [
        *("/api/kernels", "/api/sessions", "/api/kernelspecs", "/api/status", "/api/terminals"),
        *("/api/config/x", "/api/shutdown", "/lab", "/tree", "/metrics", "/voila/query/x"),
        "/%0d%0aX-Evil:%201",
        "//evil.example/",
        f"/api/kernels/{NOBODYS}",
    ],
)
def test_unknown_addresses_are_refused(server: Server, path: str) -> None:
    status, answer = ask(server, f"GET {path}")
    assert status == 404
    assert b"evil" not in answer.lower()


ACTIONS = (
    *("POST /api/kernels", "POST /api/shutdown", "POST /api/sessions", "PUT /api/contents/x.py"),
    *("POST /voila/api/shutdown/KERNEL", "DELETE /api/kernels/KERNEL", "PATCH /api/kernels/KERNEL"),
    *("POST /api/kernels/KERNEL/restart", "POST /api/kernels/KERNEL/interrupt"),
    *("TRACE /", "OPTIONS /", "POST /"),
)


async def test_request_from_another_site_is_refused(server: Server, visit: Visit) -> None:
    """Without the cookie that only a page of this site can read, nothing is done."""
    for action in ACTIONS:
        line = action.replace("KERNEL", visit.kernel_id)
        status, answer = await asyncio.to_thread(ask, server, line, "Origin: https://evil.example")
        assert status in (403, 404, 405), line
        assert b"Traceback" not in answer
    await is_well(visit)


@LONG
async def test_request_that_no_page_sends_is_refused_with_a_cookie(
    server: Server, visit: Visit, folder: Path
) -> None:
    headers = ("Cookie: _xsrf=mine", "X-XSRFToken: mine", "Content-Length: 2")
    kernel = visit.kernel_id
    for line in (
        "POST /api/kernels",
        "POST /api/sessions",
        "PUT /api/contents/canary",
        f"POST /api/kernels/{kernel}/restart",
        f"POST /api/kernels/{kernel}/interrupt",
        f"POST /voila/api/shutdown/{NOBODYS}",
        "POST /voila/api/shutdown/..%2f..",
    ):
        status, answer = await asyncio.to_thread(ask, server, line, *headers, body=b"{}")
        assert status in (403, 404, 405), line
        assert b"Traceback" not in answer
    assert not (folder / "canary").exists()
    await is_well(visit)


def test_head_of_many_lines_is_refused(server: Server) -> None:
    headers = [f"X-{number}: {'x' * 80}" for number in range(250)]
    assert ask(server, "GET /healthz", *headers[:150])[0] == 200
    with pytest.raises((ConnectionError, IndexError)):  # the connection is closed without an answer
        ask(server, "GET /healthz", *headers)


def kernels(server: Server) -> set[int]:
    """The processes of the kernels, and that of their parent."""
    return {child.pid for child in psutil.Process(server.process.pid).children(recursive=True)}


@pytest.mark.parametrize(
    ("line", "header", "expected"),
    [
        ("HEAD /", "Accept: */*", 200),
        ("GET /", "Sec-Fetch-Dest: image", 403),
        ("GET /", "Sec-Fetch-Dest: empty", 403),
        ("GET /", "Sec-Fetch-Dest: script", 403),
        ("GET /", "Sec-Purpose: prefetch;prerender", 403),
        ("GET /", "Purpose: prefetch", 403),
        ("GET /", "Range: bytes=0-0", 403),
        ("GET /", "User-Agent: Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)", 200),
        ("GET /", "User-Agent: facebookexternalhit/1.1", 200),
        ("GET /other", "User-Agent: facebookexternalhit/1.1", 404),
        ("GET /example.jpg", "Accept: */*", 404),  # these classes have no example
        ("GET /robots.txt", "Accept: */*", 200),
    ],
)
def test_request_that_shows_the_page_to_nobody_starts_no_kernel(
    server: Server, line: str, header: str, expected: int
) -> None:
    before = kernels(server)
    status, answer = ask(server, line, header)
    assert status == expected
    assert b"kernelId" not in answer
    assert not kernels(server) - before


def test_link_preview_says_what_the_page_does(server: Server) -> None:
    _, answer = ask(server, "GET /", "User-Agent: facebookexternalhit/1.1")
    text = answer.decode()
    assert '<meta property="og:title" content="Red, green or blue?">' in text
    assert "og:image" not in text, "these classes have no example"


@pytest.mark.parametrize(
    "header",
    [
        "Sec-Fetch-Dest: document",
        "Sec-Fetch-Dest: iframe",
        "User-Agent: Mozilla/5.0 (Linux; Android 10; CUBOT X30) AppleWebKit/537.36",
    ],
)
def test_page_is_served_to_documents(server: Server, header: str) -> None:
    status, answer = ask(server, "GET /", header)
    assert status == 200
    assert b"kernelId" in answer


def test_no_answer_sets_a_cookie(server: Server) -> None:
    for path in ("/", "/nothing", "/healthz", "/voila/static/x", f"/api/kernels/{NOBODYS}", "/api"):
        _, answer = ask(server, f"GET {path}")
        assert b"set-cookie" not in answer.lower(), path


@pytest.mark.parametrize(
    "path", ["/", "/healthz", "/voila/static/x", f"/api/kernels/{NOBODYS}/channels", "/x"]
)
def test_long_address_is_refused_everywhere(server: Server, path: str) -> None:
    before = kernels(server)
    for query in ("a" * 2048, '"' * 60_000):
        assert ask(server, f"GET {path}?{query}")[0] == 414
    assert not kernels(server) - before


@LONG
@pytest.mark.parametrize("query", ["template=lab", "theme=dark", "template=../../.."])
async def test_template_and_theme_cannot_be_chosen_by_the_visitor(
    server: Server, query: str
) -> None:
    def shape(html: str) -> str:
        # The widgets' state comes in the order of their random ids.
        head, state, _ = html.partition('<script id="widget-state"')
        assert state
        return re.sub(r"[0-9a-f-]{36}|[0-9a-f]{32}", "", head)

    async with (
        await Visit.open(server.url) as plain,
        await Visit.open(f"{server.url}?{query}") as other,
    ):
        assert shape(plain.html) == shape(other.html)


def test_large_body_is_refused_before_it_is_read(server: Server) -> None:
    status, _ = ask(server, "POST /", "Content-Length: 100000000")
    assert status == 400


CODE = "open('canary', 'w').write('ran')"
FORBIDDEN = {
    "execute_request": {"code": CODE, "silent": True, "store_history": False},
    "complete_request": {"code": "open('/etc/pas", "cursor_pos": 14},
    "inspect_request": {"code": "open", "cursor_pos": 4, "detail_level": 1},
    "history_request": {"hist_access_type": "tail", "n": 10, "output": True, "raw": True},
    "is_complete_request": {"code": "1"},
    "input_reply": {"value": CODE, "status": "ok"},
    "debug_request": {"type": "request", "seq": 1, "command": "evaluate", "arguments": {}},
    "interrupt_request": {},
    "shutdown_request": {"restart": False},
    "usage_request": {},
    "create_subshell_request": {},
    "apply_request": {},
    "abort_request": {},
    "clear_request": {},
    "execute_reply": {"status": "ok"},
}


async def test_no_message_runs_code(visit: Visit, folder: Path) -> None:
    for channel in ("shell", "control", "stdin", "iopub", "heartbeat", ""):
        for kind, content in FORBIDDEN.items():
            await visit.send(kind, content, channel=channel)
    for kind, _ in await until_answered(visit):
        assert kind in ("status", "kernel_info_reply", "comm_msg")
    assert not (folder / "canary").exists()
    await is_well(visit)


async def until_answered(visit: Visit) -> list[tuple[str, dict[str, Any]]]:
    """All that comes until the kernel has worked off what was sent."""
    asked, seen = await visit.send("kernel_info_request", {}), []
    while True:
        kind, parent, content, _ = await visit.receive()
        seen.append((kind, content))
        if kind == "kernel_info_reply" and parent["msg_id"] == asked:
            return seen


async def test_forged_comm_messages_change_nothing(visit: Visit) -> None:
    """Comms to unknown targets, widgets and methods, with buffers where none belong."""
    opening = {"comm_id": "x", "data": {"state": {"_model_name": "HTMLModel"}}}
    for target in ("jupyter.widget", "os.system", "matplotlib", "__import__"):
        await visit.send("comm_open", {**opening, "target_name": target})
    label, upload = visit.find("LabelModel")[0], visit.find("FileUploadModel")[0]
    update = {"method": "update", "state": {"value": 1}, "buffer_paths": [["value", 0, "content"]]}
    for comm_id, data in (
        ("nobody's", {"method": "update", "state": {}}),
        (upload, update),
        (upload, {"method": "update", "state": {"value": [{"content": "text"}]}}),
        (label, {"method": "update", "state": {"__class__": "x", "_model_name": 3}}),
        (label, {"method": "no such"}),
        (label, {"method": "request_state", "__proto__": {}}),
        (label, {"method": "custom", "content": "click"}),
        (label, {"method": "update", "state": {"value": "x"}, "buffer_paths": [["a", 9, "b"]]}),
    ):
        await visit.send("comm_msg", {"comm_id": comm_id, "data": data}, [b"buffer"] * 3)
    for anywidget in visit.find("AnyModel"):
        for content in (None, [], {"kind": "example", "index": -1}, {"kind": "photo", "index": {}}):
            data = {"method": "custom", "content": content}
            await visit.send("comm_msg", {"comm_id": anywidget, "data": data})
    said = await until_answered(visit)
    assert not [content for _, content in said if "Traceback" in str(content)]
    await is_well(visit)


async def until_hung_up(visit: Visit, seconds: float = 20) -> None:
    with pytest.raises(DeploymentError, match="closed"):
        async with asyncio.timeout(seconds):
            await _listen(visit)


async def _listen(visit: Visit) -> None:
    while True:
        await visit.receive()


def channels(server: Server, kernel_id: str) -> str:
    return f"{server.url.replace('http', 'ws')}api/kernels/{kernel_id}/channels?session_id=1"


async def test_kernel_ids_cannot_be_guessed(server: Server, visit: Visit) -> None:
    assert uuid.UUID(visit.kernel_id).version == 4  # 122 bits of the system's randomness
    wrong = visit.kernel_id[:-1] + ("0" if visit.kernel_id[-1] != "0" else "1")
    for guess in (wrong, str(uuid.uuid4()), "0-0-0-0-0"):
        with pytest.raises(HTTPClientError) as caught:
            await websocket_connect(channels(server, guess), subprotocols=[PROTOCOL])
        assert caught.value.code == 404
    other = await Visit.open(server.url)
    assert visit.kernel_id not in other.html
    await other.close()


async def test_websocket_from_another_site_is_refused(server: Server, visit: Visit) -> None:
    request = HTTPRequest(
        channels(server, visit.kernel_id), headers={"Origin": "https://evil.example"}
    )
    with pytest.raises(HTTPClientError) as caught:
        await websocket_connect(request, subprotocols=[PROTOCOL])
    assert caught.value.code == 403
    answer = await AsyncHTTPClient().fetch(server.url + "healthz")
    assert "Access-Control-Allow-Origin" not in answer.headers


def upgraded(server: Server, kernel_id: str, session: str = "raw") -> socket.socket:
    """A bare socket on which frames can be written byte by byte."""
    address = urlsplit(server.url)
    line = socket.create_connection((address.hostname, address.port), timeout=30)
    request = (
        f"GET /api/kernels/{kernel_id}/channels?session_id={session} HTTP/1.1\r\n"
        f"Host: {address.netloc}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Extensions: permessage-deflate\r\n"
        f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: {PROTOCOL}\r\n\r\n"
    )
    line.sendall(request.encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += line.recv(4096)
    if b" 101 " not in answer:
        line.close()
        raise ConnectionError(answer)
    assert b"deflate" not in answer  # a bomb cannot come packed
    return line


def are_open(lines: list[socket.socket]) -> int:
    """How many the server has not closed; reads what has come."""
    number = 0
    for line in lines:
        line.setblocking(False)
        try:
            while line.recv(2**16):
                pass
        except BlockingIOError:
            number += 1
        except ConnectionError:
            pass
    return number


async def test_kernel_has_at_most_four_websockets(server: Server, visit: Visit) -> None:
    """Whoever does not answer the closing frame is cut off as well."""
    process = psutil.Process(server.process.pid)
    before = process.num_fds()
    lines = [
        await asyncio.to_thread(upgraded, server, visit.kernel_id, f"raw{number}")
        for number in range(20)
    ]
    async with asyncio.timeout(20):
        while are_open(lines) > 4 or process.num_fds() > before + 60:
            await asyncio.sleep(0.1)
    assert are_open(lines[-4:]) == 4
    await until_hung_up(visit)
    for line in lines:
        line.close()


async def test_kernel_has_at_most_thirty_new_websockets_a_minute(
    server: Server, visit: Visit
) -> None:
    """Each has sockets of ZeroMQ for a second more, and there are 1,023 for all kernels."""

    def opens(number: int) -> bool:
        try:
            upgraded(server, visit.kernel_id, f"raw{number}").close()
        except ConnectionError:
            return False
        return True

    opened = [await asyncio.to_thread(opens, number) for number in range(35)]
    assert sum(opened) == 29  # and that of the visit
    async with await Visit.open(server.url) as other:
        await is_well(other)


@pytest.mark.parametrize(
    "session", ["z" * 65, "", "x%0A[Voila]%20WARNING%20|%20forged", "%ff%fe", "a%20b", "a/b"]
)
def test_session_id_of_another_form_is_refused(server: Server, visit: Visit, session: str) -> None:
    """It becomes a socket's identity and stands in the log; a long one left a place taken."""
    status, _ = ask(
        server,
        f"GET /api/kernels/{visit.kernel_id}/channels?session_id={session}",
        *("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
        *("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", f"Sec-WebSocket-Protocol: {PROTOCOL}"),
    )
    assert status == 400
    assert "\n[Voila] WARNING | forged" not in server.text


def test_log_names_no_kernel(server: Server, visit: Visit) -> None:
    assert "Kernel started: (id)" in server.text
    assert visit.kernel_id not in server.text


def ends(line: socket.socket) -> bool:
    """Read until the server hangs up."""
    try:
        while line.recv(2**16):
            pass
    except ConnectionError:
        pass
    return True


async def test_giant_frame_is_refused_at_its_head(server: Server, visit: Visit) -> None:
    process = psutil.Process(server.process.pid)
    before = process.memory_info().rss
    for length in (2**26, 2**30, 2**40, 2**63 - 1):
        with upgraded(server, visit.kernel_id) as line:
            line.sendall(struct.pack(">BBQ4s", 0x82, 0xFF, length, bytes(4)))
            assert await asyncio.to_thread(ends, line)
    assert process.memory_info().rss - before < 20e6
    await is_well(visit)


@LONG
async def test_slow_frames_delay_nobody(server: Server, visit: Visit) -> None:
    """Many lines on which a frame has begun and never ends."""
    lines = [upgraded(server, visit.kernel_id) for _ in range(3)]
    for line in lines:
        line.sendall(struct.pack(">BBQ4s", 0x82, 0xFF, 2**25, bytes(4)) + b"x")
    started = time.monotonic()
    await is_well(visit)
    assert time.monotonic() - started < 10
    for line in lines:
        line.close()


UNFINISHED = struct.pack(">BBQ4s", 0x82, 0xFF, 2**25 - 1, bytes(4)) + bytes(20 * 2**20)


async def test_unfinished_messages_have_a_limit_together(server: Server) -> None:
    """240 MB sent on twelve connections of three pages; whoever made most wait is cut off."""
    process = psutil.Process(server.process.pid)
    async with contextlib.AsyncExitStack() as stack:
        visits = [await stack.enter_async_context(await Visit.open(server.url)) for _ in range(4)]
        before = process.memory_info().rss
        lines = [
            await asyncio.to_thread(upgraded, server, visit.kernel_id, f"raw{number}")
            for visit in visits[1:]
            for number in range(4)
        ]
        for line in lines:
            with contextlib.suppress(ConnectionError):
                await asyncio.to_thread(line.sendall, UNFINISHED)
        assert process.memory_info().rss - before < 100e6
        await is_well(visits[0])
        for line in lines:
            line.close()


@LONG
async def test_unfinished_messages_delay_a_large_photo_for_a_limited_time(server: Server) -> None:
    """40 MB that never become a message: they are what the photo has to wait for."""
    async with await Visit.open(server.url) as sender, await Visit.open(server.url) as visit:
        lines = [await asyncio.to_thread(upgraded, server, sender.kernel_id) for _ in range(2)]
        for line in lines:
            await asyncio.to_thread(line.sendall, UNFINISHED)
        assert await visit.classify(bytes(2**20), seconds=20) == UnsupportedImageError.words
        for line in lines:
            line.close()


async def test_kernel_that_cannot_keep_up_slows_its_page_down(server: Server, visit: Visit) -> None:
    """3 GB in photos: the next one is read when the last one is handled."""
    process = psutil.Process(server.process.pid)
    before, most = process.memory_info().rss, 0
    file = {"name": "x", "type": "", "size": 1, "last_modified": 0}
    data = {
        "method": "update",
        "state": {"value": [file]},
        "buffer_paths": [["value", 0, "content"]],
    }
    chooser = visit.find("FileUploadModel")[0]
    for number in range(20):
        await visit.send("comm_msg", {"comm_id": chooser, "data": data}, [bytes([number]) * 2**24])
        most = max(most, process.memory_info().rss)
    await until_answered(visit)
    assert most - before < 100e6
    async with await Visit.open(server.url) as another:
        await is_well(another)


async def test_photos_sent_at_the_same_moment_wait_in_the_browsers(server: Server) -> None:
    """64 MB by four visitors: nobody is cut off."""
    process = psutil.Process(server.process.pid)
    async with contextlib.AsyncExitStack() as stack:
        visits = [await stack.enter_async_context(await Visit.open(server.url)) for _ in range(4)]
        before, most = process.memory_info().rss, 0
        answers = asyncio.gather(*(visit.classify(bytes(2**24)) for visit in visits))
        while not answers.done():
            most = max(most, process.memory_info().rss)
            await asyncio.sleep(0.02)
        assert set(answers.result()) == {UnsupportedImageError.words}
        assert most - before < 80e6


async def test_message_of_many_bytes_from_a_kernel_is_not_received(server: Server) -> None:
    """ZeroMQ would receive a thousand of them before anybody looks at one."""
    process = psutil.Process(server.process.pid)
    async with await Visit.open(server.url) as visit:
        chooser = visit.find("FileUploadModel")[0]
        file = {"name": "x", "type": "", "size": 1, "last_modified": 0}
        data = {
            "method": "update",
            "state": {"value": [file]},
            "buffer_paths": [["value", 0, "content"]],
        }
        await visit.send("comm_msg", {"comm_id": chooser, "data": data}, [bytes(3 * 2**23)])
        await until_answered(visit)
        before = process.memory_info().rss
        line = await asyncio.to_thread(upgraded, server, visit.kernel_id)
        await ask_for_states(line, 4)
        assert await most_until_still(process) - before < 15e6
        line.close()


async def most_until_still(process: psutil.Process) -> int:
    """Return the most memory of the server, in bytes, until it and kernels have nothing to do."""
    most, still, cpu = 0, 0, -1.0
    async with asyncio.timeout(60):
        while still < 5:
            most = max(most, process.memory_info().rss)
            now = 0.0
            for member in [process, *process.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):  # has ended meanwhile
                    now += sum(member.cpu_times()[:2])
            still, cpu = (still + 1, cpu) if abs(now - cpu) < 0.03 else (0, now)
            await asyncio.sleep(0.2)
    return most


async def ask_for_states(line: socket.socket, times: int) -> None:
    """Ask for the state of all widgets on a connection on which nothing is read."""
    opening = {"comm_id": "c", "target_name": "jupyter.widget.control", "data": {}}
    packets = [pack("comm_open", opening, {"version": "1.0.0"})]
    asking = {"comm_id": "c", "data": {"method": "request_states"}}
    packets += [pack("comm_msg", asking, {}) for _ in range(times)]
    line.settimeout(5)
    with contextlib.suppress(OSError):  # the server reads no more, or has closed it
        await asyncio.to_thread(line.sendall, b"".join(packets))


def pack(kind: str, content: dict[str, Any], metadata: dict[str, Any]) -> bytes:
    """A message in a masked frame."""
    header = {"msg_id": uuid.uuid4().hex, "msg_type": kind, "session": "s"}
    parts = [json.dumps(part).encode() for part in (header, {}, metadata, content)]
    message: bytes = serialize_msg_to_ws_v1(parts, "shell")
    return struct.pack(">BBH4s", 0x82, 0xFE, len(message), bytes(4)) + message


@pytest.mark.parametrize("hangs_up", [False, True])
async def test_answers_that_nobody_reads_have_a_limit(server: Server, hangs_up: bool) -> None:
    process = psutil.Process(server.process.pid)
    before = process.memory_info().rss
    visit = await Visit.open(server.url)
    line = await asyncio.to_thread(upgraded, server, visit.kernel_id)
    await visit.close()
    await ask_for_states(line, 400)
    if hangs_up:
        line.close()
    assert await most_until_still(process) - before < 30e6
    line.close()
    async with await Visit.open(server.url) as another:
        await is_well(another)


@LONG
async def test_answers_that_many_connections_do_not_read_have_a_limit(server: Server) -> None:
    """400 requests for all states on each of twelve connections of three pages."""
    process = psutil.Process(server.process.pid)
    async with contextlib.AsyncExitStack() as stack:
        visits = [await stack.enter_async_context(await Visit.open(server.url)) for _ in range(4)]
        before, most = process.memory_info().rss, 0
        lines = [
            await asyncio.to_thread(upgraded, server, visit.kernel_id, f"raw{number}")
            for visit in visits[1:]
            for number in range(4)
        ]
        asking = asyncio.gather(*(ask_for_states(line, 400) for line in lines))
        while not asking.done():
            most = max(most, process.memory_info().rss)
            await asyncio.sleep(0.1)
        await is_well(visits[0])
        assert max(most, process.memory_info().rss) - before < 100e6
        for line in lines:
            line.close()


@LONG
@pytest.mark.parametrize("path", ["{script}", "/unknown", "/voila/api/shutdown/x"])
async def test_files_and_error_pages_that_nobody_reads_have_a_limit(
    server: Server, visit: Visit, path: str
) -> None:
    """600 connections, each with 20 requests of which no answer is read."""
    page = (await AsyncHTTPClient().fetch(server.url, raise_error=False)).body.decode()
    [script] = re.findall(r'src="([^"]+page-[^"]+\.js)"', page)
    request = f"GET {path.format(script=script)} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    process, address = psutil.Process(server.process.pid), urlsplit(server.url)
    before, size, most = process.memory_info().rss, server.log.stat().st_size, 0
    lines = []
    try:
        for _ in range(600):
            line = socket.socket()
            lines.append(line)
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            with contextlib.suppress(ConnectionError):
                await asyncio.to_thread(line.connect, (address.hostname, address.port))
                line.sendall(20 * request)
            most = max(most, process.memory_info().rss)
        await is_well(visit)
        assert max(most, process.memory_info().rss) - before < 100e6
        assert server.log.stat().st_size - size < 20_000
    finally:
        for line in lines:
            line.close()


def test_message_of_many_lists_stops_nobody(server: Server, visit: Visit) -> None:
    parts = [b'{"msg_id":"a","msg_type":"x","session":"s"}', b"{}", b"{}"]
    wide = serialize_msg_to_ws_v1([*parts, b'{"a":[' + b"[]," * 340_000 + b"[]]}"], "shell")
    cpu = sum(psutil.Process(server.process.pid).cpu_times()[:2])
    with upgraded(server, visit.kernel_id) as line:
        line.sendall(struct.pack(">BBQ4s", 0x82, 0xFF, len(wide), bytes(4)) + wide)
        assert ends(line)
    assert sum(psutil.Process(server.process.pid).cpu_times()[:2]) - cpu < 0.5


@LONG
async def test_eleven_hundred_half_open_connections_stop_nobody(server: Server) -> None:
    """Requests that never end take nothing from those who come; the log stays small."""
    address = urlsplit(server.url)
    size = server.log.stat().st_size
    held = [socket.create_connection((address.hostname, address.port)) for _ in range(1100)]
    for line in held:
        with contextlib.suppress(ConnectionError):
            line.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
    try:
        async with await Visit.open(server.url) as visit:
            await is_well(visit)
        assert psutil.Process(server.process.pid).num_fds() < 600
        assert server.log.stat().st_size - size < 10_000
    finally:
        for line in held:
            line.close()


def test_nginx_example_sets_no_weaker_policy(folder: Path) -> None:
    """What is tested here is the voila.json that is shipped."""
    assert (folder / "voila.json").read_bytes() == (ROOT / "voila.json").read_bytes()
