"""The journal's file format: segments of checksummed records, read without trusting a byte of them.

A segment begins with a magic number and a framed header; records follow from byte 256 on. A frame is

    u32 word      length of the payload in the low 24 bits, the tag above them
    u32 crc       CRC-32 of the payload, seeded with the word, so that a changed length is noticed too
    payload       MessagePack, padded with zeros to 8 bytes

little-endian, at a multiple of 8. The tag holds the kind in its high nibble and the version in its low one. Every
payload is an array whose first element is the request's id, in all versions to come. Eight zero bytes where a frame
would be mean: nothing here yet. The seal says that the segment is complete and the series goes on in the next one.

The payload is written before its frame's head: a reader, or whoever comes after a kill, sees whole records only.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING
from zlib import crc32

import msgspec

if TYPE_CHECKING:
    from watchllm.domain.paths import StrPath

MAGIC = b"WLLMJNL1"
FIRST_RECORD = 256
ALIGNMENT = 8
MAX_PAYLOAD = 48 * 1024
"""Longer records are refused: the fields of an event are bounded far below it."""

HEADER, OPENED, SETTLED = 1, 2, 3
VERSIONS = {HEADER: 1, OPENED: 2, SETTLED: 3}
"""The newest version of each kind that this program reads and writes."""

SEAL = b"\xff\xff\xff\xffSEAL"
NOTHING = bytes(8)
FRAME = struct.Struct("<II")

_CHUNK = 1 << 20
_LENGTH_MASK = 0xFFFFFF


class SegmentHeader(msgspec.Struct, frozen=True, array_like=True):
    """Who wrote a segment. `created_ns` is epoch nanoseconds by the clock of that moment."""

    series: str
    sequence: int
    pid: int
    role: str
    region: str
    created_ns: int


class Record(msgspec.Struct, frozen=True):
    """One record as it lies in its segment."""

    offset: int
    tag: int
    payload: bytes

    @property
    def kind(self) -> int:
        return self.tag >> 4

    @property
    def version(self) -> int:
        return self.tag & 15


class Reading(msgspec.Struct, frozen=True):
    """What was read of a segment from an offset on.

    `sealed`: the segment is complete and read to its end. `torn`: at `next_offset` is something that is no record.
    """

    records: list[Record]
    next_offset: int
    sealed: bool
    torn: bool


def tag_of(kind: int) -> int:
    """The tag of records of `kind` as this program writes them."""
    return kind << 4 | VERSIONS[kind]


def is_known(tag: int) -> bool:
    """Whether this program can read records with this tag."""
    kind, version = tag >> 4, tag & 15
    return kind in VERSIONS and 1 <= version <= VERSIONS[kind]


def frame(tag: int, payload: bytes) -> bytes:
    """A whole frame, padded."""
    word = len(payload) | tag << 24
    return FRAME.pack(word, crc32(payload, word)) + payload + bytes(-len(payload) % ALIGNMENT)


def head_of(header: SegmentHeader) -> bytes:
    """The first bytes of a segment. Raises ValueError when role and region do not fit in."""
    head = MAGIC + frame(tag_of(HEADER), msgspec.msgpack.encode(header))
    if len(head) > FIRST_RECORD:
        raise ValueError("role and region are too long for a segment's header")
    return head.ljust(FIRST_RECORD, b"\0")


def read_header(path: StrPath) -> SegmentHeader | None:
    """A segment's header; None where it has none that can be read. Raises OSError."""
    with open(path, "rb") as file:
        head = file.read(FIRST_RECORD)
    if head[: len(MAGIC)] != MAGIC:
        return None
    found = _frame_at(head, len(MAGIC))
    if found is None or found.kind != HEADER or not is_known(found.tag):
        return None
    try:
        return msgspec.msgpack.decode(found.payload, type=SegmentHeader)
    except msgspec.MsgspecError:
        return None


def read_segment(path: StrPath, offset: int = FIRST_RECORD, *, limit: int = 1 << 30) -> Reading:
    """The records of a segment from `offset` on, up to the first one that ends after `limit` bytes. Raises OSError."""
    records: list[Record] = []
    offset = max(offset, FIRST_RECORD)
    end = offset + limit
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while offset < end:
            data = os.pread(descriptor, _CHUNK, offset)
            read, state = _parse(data, offset, records, whole=len(data) < _CHUNK)
            offset += read
            if state != _MORE:
                return Reading(records, offset, state == _SEALED, state == _TORN)
    finally:
        os.close(descriptor)
    return Reading(records, offset, sealed=False, torn=False)


def next_frame(path: StrPath, offset: int) -> int | None:
    """Where, after the damage at `offset`, the next whole record or the seal is; None = nowhere. Raises OSError."""
    with open(path, "rb") as file:
        data = file.read()
    position = offset + ALIGNMENT
    while position < len(data):
        head = data[position : position + ALIGNMENT]
        if head == SEAL:
            return position
        if head != NOTHING:
            found = _frame_at(data, position)
            if found is not None:
                return position
        position += ALIGNMENT
    return None


_MORE, _END, _SEALED, _TORN = range(4)


def _parse(data: bytes, base: int, records: list[Record], *, whole: bool) -> tuple[int, int]:
    """Append the records in `data`, which lies at `base`; how many bytes they took and what comes after them.

    `whole`: the file ends with `data`.
    """
    position, size = 0, len(data)
    unpack = FRAME.unpack_from
    while True:
        if size - position < ALIGNMENT:
            if not whole:
                return position, _MORE
            return position, _TORN if any(data[position:]) else _END
        word, crc = unpack(data, position)
        length = word & _LENGTH_MASK
        start = position + ALIGNMENT
        if start + length > size and not whole and length <= MAX_PAYLOAD:
            return position, _MORE
        payload = data[start : start + length]
        if length and length <= MAX_PAYLOAD and len(payload) == length and crc32(payload, word) == crc:
            records.append(Record(base + position, word >> 24, payload))
            position = start + length + (-length % ALIGNMENT)
            continue
        head = data[position:start]
        if head == NOTHING:
            return position, _END
        return position, _SEALED if head == SEAL else _TORN


def _frame_at(data: bytes, position: int) -> Record | None:
    if len(data) - position < ALIGNMENT:
        return None
    word, crc = FRAME.unpack_from(data, position)
    length = word & _LENGTH_MASK
    payload = data[position + ALIGNMENT : position + ALIGNMENT + length]
    if not 0 < length <= MAX_PAYLOAD or len(payload) != length or crc32(payload, word) != crc:
        return None
    return Record(position, word >> 24, payload)
