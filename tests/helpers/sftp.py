"""A stand-in for somebody's SFTP server: one folder, one user, in this process."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import paramiko
from paramiko import common, sftp

PASSWORD = "p4ssw0rd"


@dataclass(frozen=True)
class Server:
    """Where it is."""

    url: str


class _Login(paramiko.ServerInterface):
    def check_auth_password(self, username: str, password: str) -> int:
        return common.AUTH_SUCCESSFUL if password == PASSWORD else common.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return common.OPEN_SUCCEEDED


class _Files(paramiko.SFTPServerInterface):
    def list_folder(self, path: str) -> list[paramiko.SFTPAttributes] | int:
        try:
            return [
                paramiko.SFTPAttributes.from_stat(entry.stat(follow_symlinks=False), entry.name)
                for entry in os.scandir(path)
            ]
        except OSError as error:
            return _refusal(error)

    def stat(self, path: str) -> paramiko.SFTPAttributes | int:
        try:
            return paramiko.SFTPAttributes.from_stat(Path(path).stat())
        except OSError as error:
            return _refusal(error)

    def lstat(self, path: str) -> paramiko.SFTPAttributes | int:
        return self.stat(path)

    def open(self, path: str, flags: int, attr: paramiko.SFTPAttributes) -> paramiko.SFTPHandle | int:
        try:
            file = os.fdopen(os.open(path, flags, 0o600), "r+b" if flags & (os.O_WRONLY | os.O_RDWR) else "rb")
        except OSError as error:
            return _refusal(error)
        handle = paramiko.SFTPHandle(flags)
        handle.readfile = handle.writefile = file  # pyright: ignore[reportAttributeAccessIssue]  # as its docs say
        return handle

    def remove(self, path: str) -> int:
        return _done(lambda: Path(path).unlink())

    def mkdir(self, path: str, attr: paramiko.SFTPAttributes) -> int:
        return _done(lambda: Path(path).mkdir())

    def posix_rename(self, oldpath: str, newpath: str) -> int:
        return _done(lambda: Path(oldpath).replace(newpath))


def _done(call: object) -> int:
    assert callable(call)
    try:
        call()
    except OSError as error:
        return _refusal(error)
    return sftp.SFTP_OK


def _refusal(error: OSError) -> int:
    assert error.errno is not None
    return paramiko.SFTPServer.convert_errno(error.errno)


@contextmanager
def serving(folder: Path) -> Generator[Server]:
    """Runs the server; the folder's path is part of the URL."""
    transports: list[paramiko.Transport] = []
    # Client and server hand each packet to one another, and would wait for the interpreter at each.
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.0002)
    key = paramiko.ECDSAKey.generate()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                transport = paramiko.Transport(client)
                transport.add_server_key(key)
                transport.set_subsystem_handler("sftp", paramiko.SFTPServer, _Files)
                transports.append(transport)
                transport.start_server(server=_Login())

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield Server(f"sftp://me:{PASSWORD}@127.0.0.1:{listener.getsockname()[1]}{folder}")
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            for transport in transports:
                transport.close()
            thread.join()
            sys.setswitchinterval(interval)
