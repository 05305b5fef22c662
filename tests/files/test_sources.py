"""Files come from a folder, or from a pinned source, whole or not at all; without network the message says from where."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ncfair_jax.benchmarks.registry import BENCHMARKS
from ncfair_jax.files import sources as files
from ncfair_jax.files.sources import GAP, DataError, DataFolder, Source, fetch

CONTENT = b"index,text\n0,hello\n"
PUBLIC = {source.name: source for benchmark in BENCHMARKS.values() for source in benchmark.files("") if source.url} | {
    GAP.name: GAP
}


class Handler(BaseHTTPRequestHandler):
    """/whole is the file; /cut promises more than it sends; the rest is missing."""

    def do_GET(self):  # the name that http.server calls
        if self.path not in ("/whole", "/cut"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT) + (100 if self.path == "/cut" else 0)))
        self.end_headers()
        self.wfile.write(CONTENT)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def server():
    """Address of a server of this test's own."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


@pytest.fixture(autouse=True)
def direct(monkeypatch):
    """No proxy between this test and its own server."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def source(server, page="whole", content=CONTENT):
    return Source("a/BEC-Pro_EN.tsv", f"{server}/{page}", hashlib.sha256(content).hexdigest())


def test_fetch_puts_the_file_in_place(server, tmp_path):
    fetch(source(server), tmp_path / "new/folder/file.csv")
    assert (tmp_path / "new/folder/file.csv").read_bytes() == CONTENT
    assert [p.name for p in (tmp_path / "new/folder").iterdir()] == ["file.csv"]


@pytest.mark.parametrize(
    ("page", "content", "message"),
    [
        ("whole", b"another version", hashlib.sha256(CONTENT).hexdigest()),
        ("cut", CONTENT, "cannot fetch"),
        ("missing", CONTENT, "404"),
    ],
)
def test_a_failed_fetch_leaves_nothing_and_what_was_there(server, tmp_path, page, content, message):
    (tmp_path / "file.csv").write_text("the old file")
    with pytest.raises(DataError, match=message) as caught:
        fetch(source(server, page, content), tmp_path / "file.csv")
    assert f"{server}/{page}" in str(caught.value)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"file.csv": "the old file"}


def test_the_cache_is_filled_once_and_serves_offline(server, tmp_path, monkeypatch):
    monkeypatch.setenv("NCFAIR_CACHE", str(tmp_path))
    path = DataFolder(None, offline=False).path(source(server))
    assert path.read_bytes() == CONTENT
    assert path.name == "BEC-Pro_EN.tsv"
    assert tmp_path in path.parents
    monkeypatch.setattr(files, "fetch", lambda *_: pytest.fail("fetched again"))
    again = (DataFolder(None, offline=offline).path(source(server)) for offline in (True, False))
    assert list(again) == [path, path]


def test_another_pinned_version_is_another_cached_file(server, tmp_path, monkeypatch):
    monkeypatch.setenv("NCFAIR_CACHE", str(tmp_path))
    old = DataFolder(None, offline=False).path(source(server))
    with pytest.raises(DataError, match="expected"):
        DataFolder(None, offline=False).path(source(server, content=b"a later version"))
    assert old.is_file()


def test_a_cached_file_of_another_version_is_refused(server, tmp_path, monkeypatch):
    monkeypatch.setenv("NCFAIR_CACHE", str(tmp_path))
    path = DataFolder(None, offline=False).path(source(server))
    path.write_bytes(CONTENT + b"edited")
    with pytest.raises(DataError, match=r"is not the pinned version of .*; delete it, or name a data folder"):
        DataFolder(None, offline=False).path(source(server))


@pytest.mark.parametrize("name", PUBLIC)
def test_offline_says_what_would_have_been_fetched(name, tmp_path, monkeypatch):
    monkeypatch.setenv("NCFAIR_CACHE", str(tmp_path))
    with pytest.raises(DataError, match="offline") as caught:
        DataFolder(None, offline=True).path(PUBLIC[name])
    assert PUBLIC[name].url in str(caught.value)
    assert PUBLIC[name].sha256 in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_folder_without_the_file_says_where_to_get_it(tmp_path):
    with pytest.raises(DataError, match="is missing") as caught:
        DataFolder(tmp_path, offline=True).path(GAP)
    assert GAP.url in str(caught.value)
    assert str(tmp_path / GAP.name) in str(caught.value)
    assert not DataFolder(tmp_path).has(GAP)


@pytest.mark.parametrize("name", PUBLIC)
def test_pins_are_the_hashes_of_the_files_the_package_was_tested_with(name, shared):
    assert hashlib.sha256(shared(f"data/{name}").read_bytes()).hexdigest() == PUBLIC[name].sha256
