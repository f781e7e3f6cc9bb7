"""A store by S3's protocol, where the driver and a stand-in are installed (`pip install s3fs 'moto[server]'`)."""

from __future__ import annotations

import io
import os
from collections.abc import Generator
from typing import Any

import pytest
from fsspec.config import conf

from b44_assets.backup.store import Store
from b44_assets.errors import BackupError

moto_server: Any = pytest.importorskip("moto.server")
s3fs: Any = pytest.importorskip("s3fs")
pytestmark = pytest.mark.filterwarnings("default")  # what the drivers warn of among themselves is not ours


@pytest.fixture(scope="module")
def endpoint() -> Generator[str]:
    server = moto_server.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@pytest.fixture
def store(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setitem(conf, "s3", {"endpoint_url": endpoint})
    bucket = f"b44-{os.urandom(6).hex()}"
    s3fs.S3FileSystem(endpoint_url=endpoint, skip_instance_cache=True).mkdir(bucket)
    return Store.at(f"s3://{bucket}/folder")


@pytest.mark.parametrize("size", [1000, 120_000_000])
def test_what_was_put_is_what_is_read(store: Store, size: int) -> None:
    data = os.urandom(1000) * (size // 1000)

    store.put("backups/1/dump", io.BytesIO(data))

    with store.open("backups/1/dump") as file:
        assert file.read() == data
    assert store.names() == {"backups/1/dump": size}


def test_a_file_is_never_overwritten_and_can_be_removed(store: Store) -> None:
    store.put("a", io.BytesIO(b"first"))

    with pytest.raises(BackupError, match="not overwritten"):
        store.put("a", io.BytesIO(b"second"))
    store.remove("a")
    store.remove("a")

    assert store.names() == {}


@pytest.mark.parametrize("size", [1000, 120_000_000])
def test_nothing_is_left_of_a_file_whose_source_fails(store: Store, endpoint: str, size: int) -> None:
    with pytest.raises(ValueError, match="no more"), store.writing("a/b") as sink:
        for _ in range(size // 1000):
            sink.write(bytes(1000))
        raise ValueError("no more")

    assert store.names() == {}
    assert not store.exists("a/b")
    bucket = store.location.split("/")[2]
    # Parts of an upload that is never completed are seen nowhere, and paid for.
    assert s3fs.S3FileSystem(endpoint_url=endpoint).list_multipart_uploads(bucket) == []


def test_a_missing_bucket_is_one_line_without_the_secret(store: Store) -> None:
    elsewhere = Store.at("s3://not-there/folder")

    with pytest.raises(BackupError, match=r"^s3://not-there/folder/a cannot be written: ") as caught:
        elsewhere.put("a", io.BytesIO(b"x"))
    assert "\n" not in str(caught.value)
    assert "very-secret" not in str(caught.value)
