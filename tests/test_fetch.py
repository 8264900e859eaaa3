import errno
import hashlib
import os
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer

import pytest

from course_lib import fetch as fetch_module
from course_lib.base import ROOT
from course_lib.fetch import fetch

BODY = bytes(range(256)) * 2000
MD5 = hashlib.md5(BODY).hexdigest()


class Server(ThreadingTCPServer):  # HTTPServer would look its own name up
    """Sends BODY; `cut` breaks off the first answers after so many bytes each."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.status, self.cut = BODY, 200, []
        self.chunk_pause, self.ranges_known = 0.0, True
        self.asked = []  # the Range header of each request, None without one
        self.url = f"http://127.0.0.1:{self.server_address[1]}/set.npz"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        wanted = self.headers.get("Range")
        server.asked.append(wanted)
        if server.status != 200:
            self.send_error(server.status)
            return
        start = 0
        if wanted and server.ranges_known:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(server.body):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(server.body) - start))
        self.end_headers()
        cut = server.cut.pop(0) if server.cut else len(server.body)
        for at in range(start, min(start + cut, len(server.body)), 64_000):
            time.sleep(server.chunk_pause)
            self.wfile.write(server.body[at : min(at + 64_000, start + cut)])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def left_in(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.suffix != ".lock")


def test_a_slow_server_is_waited_for(server, tmp_path, capfd):
    server.chunk_pause = 0.02
    path = fetch(server.url, tmp_path / "new" / "set.npz", MD5)
    assert path.read_bytes() == BODY and left_in(path.parent) == ["set.npz"]
    assert "set.npz: 100%" in capfd.readouterr().err  # the progress bar


def test_a_file_that_is_there_is_not_asked_for(server, tmp_path):
    (tmp_path / "set.npz").write_bytes(b"mine")
    fetch(server.url, tmp_path / "set.npz", MD5)
    assert server.asked == [] and (tmp_path / "set.npz").read_bytes() == b"mine"


def test_a_broken_connection_is_continued_where_it_stopped(server, tmp_path):
    server.cut = [100_000, 200_000]
    path = fetch(server.url, tmp_path / "set.npz", MD5, pause=0)
    assert path.read_bytes() == BODY and left_in(tmp_path) == ["set.npz"]
    assert server.asked == [None, "bytes=65536-", "bytes=262144-"]


def test_a_server_without_ranges_is_asked_for_all_of_it_again(server, tmp_path):
    server.cut, server.ranges_known = [100_000], False
    assert fetch(server.url, tmp_path / "set.npz", MD5, pause=0).read_bytes() == BODY


def test_a_later_call_continues_what_an_earlier_one_left(server, tmp_path):
    server.cut = [100_000, 0]
    with pytest.raises(ConnectionError, match=r"set\.npz\.part keeps what arrived"):
        fetch(server.url, tmp_path / "set.npz", MD5, attempts=2, pause=0)
    assert left_in(tmp_path) == ["set.npz.part"]
    assert fetch(server.url, tmp_path / "set.npz", MD5).read_bytes() == BODY
    assert server.asked[-1] == "bytes=65536-" and left_in(tmp_path) == ["set.npz"]


def test_a_part_that_is_too_long_is_begun_again(server, tmp_path):
    (tmp_path / "set.npz.part").write_bytes(BODY)
    assert fetch(server.url, tmp_path / "set.npz", MD5, pause=0).read_bytes() == BODY


def test_a_server_that_stalls_is_given_up(server, tmp_path):
    server.chunk_pause = 0.5
    with pytest.raises(ConnectionError, match="no network or a broken connection"):
        fetch(server.url, tmp_path / "set.npz", MD5, attempts=2, timeout=0.05, pause=0)


def test_wrong_bytes_are_not_kept(server, tmp_path):
    server.body = BODY[::-1]
    with pytest.raises(ValueError, match=r"other bytes than the published set\.npz"):
        fetch(server.url, tmp_path / "set.npz", MD5)
    assert left_in(tmp_path) == []


@pytest.mark.parametrize(("status", "requests"), [(404, 1), (503, 3)])
def test_an_error_of_the_server_names_the_ways_out(server, tmp_path, status, requests):
    server.status = status
    message = f"the server answered {status}.*by hand, download http.*phantom"
    with pytest.raises(ConnectionError, match=message):
        fetch(server.url, tmp_path / "set.npz", MD5, attempts=3, pause=0)
    assert len(server.asked) == requests and left_in(tmp_path) == []


def test_no_network_names_the_ways_out(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as taken:  # bound, not listening: nobody answers there
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/set.npz"
        with pytest.raises(ConnectionError, match=r"no network.*by hand.*phantom"):
            fetch(url, tmp_path / "set.npz", MD5, attempts=2, pause=0)
    assert left_in(tmp_path) == []


def test_a_full_disk_is_told_and_nothing_stays(server, tmp_path, monkeypatch):
    def full(url, part, timeout):
        part.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fetch_module, "_continue", full)
    with pytest.raises(OSError, match=r"Free some space.*COURSE_CACHE") as caught:
        fetch(server.url, tmp_path / "set.npz", MD5)
    assert caught.value.errno == errno.ENOSPC and left_in(tmp_path) == []


def test_a_folder_that_may_not_be_written_is_told(server, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OSError, match="may write there, or set COURSE_CACHE"):
        fetch(server.url, tmp_path / "set.npz", MD5)


def test_two_processes_share_one_download(server, tmp_path):
    server.chunk_pause = 0.05
    code = (
        "import pathlib, sys; from course_lib.fetch import fetch;"
        "fetch(sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3])"
    )
    command = [sys.executable, "-c", code, server.url, tmp_path / "set.npz", MD5]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        for _ in range(2)
    ]
    assert [process.wait() for process in processes] == [0, 0]
    assert (tmp_path / "set.npz").read_bytes() == BODY and len(server.asked) == 1
