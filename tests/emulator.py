"""A bucket on this machine: gcp-storage-emulator, and what it lacks of a real one: preconditions on an object's generation, and
the generation of an object that is read.

`python -m tests.emulator PORT` serves one by itself until it is killed.
"""

import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from http.server import HTTPServer
from urllib.parse import parse_qs, urlparse

from gcp_storage_emulator import server
from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers.buckets import create_bucket
from gcp_storage_emulator.storage import Storage

BUCKET = "bucket"


class PreconditionFailedError(Exception):
    pass


class Conditional(Storage):
    """Objects in memory that are written, read and deleted only if they are of the generation that the request names.

    Requests come one at a time, so nothing happens between the look and the deed.
    """

    wanted: int | None = None
    read: str | None = None  # generation of the object that the last request read

    def _check(self, bucket: str, name: str) -> None:
        try:
            generation = int(self.get_file_obj(bucket, name)["generation"])
        except NotFound:
            generation = 0
        if self.wanted not in (None, generation):
            raise PreconditionFailedError(name)

    def create_file(self, bucket, name, *args, **kwargs):
        self._check(bucket, name)
        return super().create_file(bucket, name, *args, **kwargs)

    def delete_file(self, bucket, name, *args, **kwargs):
        self._check(bucket, name)
        return super().delete_file(bucket, name, *args, **kwargs)

    def get_file(self, bucket, name, *args, **kwargs):
        self._check(bucket, name)
        self.read = self.get_file_obj(bucket, name)["generation"]
        return super().get_file(bucket, name, *args, **kwargs)


class Handler(server.RequestHandler):
    def _conditional(self, handle) -> None:
        query = parse_qs(urlparse(self.path).query)
        self.storage.read = None
        self.storage.wanted = int(query["ifGenerationMatch"][0]) if "ifGenerationMatch" in query else None
        try:
            handle()
        except PreconditionFailedError:
            self.send_error(HTTPStatus.PRECONDITION_FAILED)
        except BrokenPipeError:
            pass  # a client that was killed

    def end_headers(self) -> None:
        if self.storage.read:
            self.send_header("x-goog-generation", self.storage.read)
        super().end_headers()

    def do_GET(self):  # noqa: N802
        self._conditional(super().do_GET)

    def do_POST(self):  # noqa: N802
        self._conditional(super().do_POST)

    def do_PUT(self):  # noqa: N802
        self._conditional(super().do_PUT)

    def do_DELETE(self):  # noqa: N802
        self._conditional(super().do_DELETE)

    def log_message(self, *_):
        pass


def serve(port: int) -> HTTPServer:
    storage = Conditional(use_memory_fs=True)
    create_bucket(BUCKET, storage)
    return HTTPServer(("localhost", port), partial(Handler, storage))


def environment(port: int) -> dict[str, str]:
    """What leads etils, gcsfs, Google's client and tensorstore to the emulator instead of Google."""
    url = f"http://localhost:{port}"
    return {
        "STORAGE_EMULATOR_HOST": url,
        "TENSORSTORE_GCS_HTTP_URL": url,
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # it would ask another service what kind of bucket it is
        "NO_GCE_CHECK": "true",  # and whether this machine is Google's
    }


@contextmanager
def emulator() -> Iterator[int]:
    """A bucket that this process and those that it starts find; its port."""
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    served = serve(port)
    before = dict(os.environ)
    os.environ.update(environment(port))
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    try:
        yield port
    finally:
        served.shutdown()
        served.server_close()
        thread.join()
        os.environ.clear()
        os.environ.update(before)


if __name__ == "__main__":
    serve(int(sys.argv[1])).serve_forever()
