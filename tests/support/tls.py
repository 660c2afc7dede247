"""A certificate authority for one test, and a way to a server that speaks TLS."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import trustme
from attrs import frozen

from support.proxy import CHUNK_BYTES, HOST


@frozen
class Certificates:
    """Files in PEM format.

    Attributes:
        authority: the certificate of the authority that signed the others.
        server: the server's certificate with its key.
        client: a client's.
    """

    authority: Path
    server: Path
    client: Path


def make_certificates(folder: Path) -> Certificates:
    """A new authority, with certificates for the loopback address and for one client."""
    authority = trustme.CA()
    files = Certificates(folder / "ca.pem", folder / "server.pem", folder / "client.pem")
    authority.cert_pem.write_to_path(str(files.authority))
    authority.issue_cert(HOST).private_key_and_cert_chain_pem.write_to_path(str(files.server))
    authority.issue_cert("client@example.org").private_key_and_cert_chain_pem.write_to_path(str(files.client))
    return files


@asynccontextmanager
async def tls_in_front_of(port: int, certificates: Certificates) -> AsyncGenerator[int]:
    """Ends TLS before a server that has none, and lets in only clients with a certificate; gives the port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificates.authority))
    context.load_cert_chain(certificates.server)
    context.verify_mode = ssl.CERT_REQUIRED

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward_reader, onward_writer = await asyncio.open_connection(HOST, port)
        passing.append(asyncio.gather(_pass_on(reader, onward_writer), _pass_on(onward_reader, writer)))

    passing: list[asyncio.Future[tuple[None, None]]] = []
    listening = await asyncio.start_server(accept, HOST, 0, ssl=context)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        for both_ways in passing:
            both_ways.cancel()
        await asyncio.gather(*passing, return_exceptions=True)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                writer.write(data)
                await writer.drain()
    finally:
        writer.transport.abort()
