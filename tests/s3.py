"""An S3 on loopback in place of a real one, moto's: a server, and the environment that leads to it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

moto_server = pytest.importorskip("moto.server", reason="moto[server] is not installed")
_ACCOUNT = {
    "AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing", "AWS_DEFAULT_REGION": "us-east-1",
}  # fmt: skip


@contextlib.contextmanager
def moto() -> Iterator[int]:
    """An empty store for the block; its port on 127.0.0.1."""
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        yield int(server.get_host_and_port()[1])
    finally:
        server.stop()


@contextlib.contextmanager
def s3_at(endpoint: str) -> Iterator[None]:
    """For the block, `s3://` is what answers at `endpoint`, here and in what is started. fsspec keeps a connection for
    as long as its process lives: none may lead to the store of another test, which is gone.
    """
    from s3fs import S3FileSystem

    with pytest.MonkeyPatch.context() as patched:
        for name, value in {**_ACCOUNT, "AWS_ENDPOINT_URL": endpoint}.items():
            patched.setenv(name, value)
        for name in ("HTTP_PROXY", "http_proxy", "AWS_PROFILE"):
            patched.delenv(name, raising=False)
        S3FileSystem.clear_instance_cache()
        yield
        S3FileSystem.clear_instance_cache()
