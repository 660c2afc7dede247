"""Which partition of a namespace an event belongs to."""

from __future__ import annotations

import zlib


def partition_of(id: str, num_partitions: int) -> int:
    """The partition, counted from 0, that keeps the event with this id.

    It is the CRC-32 of the id's UTF-8 (that of zlib, gzip and PNG) modulo the number of partitions:
    the same in every process, version and language.
    """
    # Ids that another program put into a store need not be UTF-8; they are encoded back to the same bytes.
    return zlib.crc32(id.encode("utf-8", "surrogateescape")) % num_partitions
