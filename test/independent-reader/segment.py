"""Parsers of segments and of the block map: docs/format.md §6 and §7. None of them decrypts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from primitives import Cursor

EPOCH_MAX, NUMBER_MAX, BLOCK_SIZE_MAX = 99_999_999, 2**32 - 1, 2**32 - 1
RECORDS_MAX, FAN_OUT, BLOCKS_MAX, RUN_BYTES_MAX, CHUNK = 4096, 64, 2**26, 262_144, 262_144
HEADER_BYTES, SEGMENT_START, TRAILER_BYTES, TAG = 96, 128, 12, 16
DATA, PAGE, ATTACHMENT, FOOTER = 1, 2, 3, 4
NO_DISK = bytes(16)


# §6 segments


@dataclass(frozen=True)
class Ref:
    tenure: int
    number: int
    record: int
    offset: int
    stored: int


@dataclass(frozen=True)
class SegmentHeader:
    header: bytes
    epoch: int
    commitment: bytes


def parse_segment_header(data: bytes, name: str, repository: bytes, machine: bytes, tenure: int, number: int) -> SegmentHeader:
    """Checks that the segment is the one that its name promises: AADs do not name the segment."""
    c = Cursor(data, name)
    c.expect(b"FKSG\0\1\0\1", "magic, version and suite")
    c.expect(repository, "repository id")
    c.expect(machine, "machine id")
    c.check((c.u64(), c.u32()) == (tenure, number), "tenure and number are not those in the name")
    epoch = c.u32()
    c.check(1 <= epoch <= EPOCH_MAX, f"no epoch has the number {epoch}")
    c.expect(bytes(8), "flags and reserved field")
    c.take(32)
    header = c.before()
    return SegmentHeader(header, epoch, c.take(32))


@dataclass(frozen=True)
class FooterRecord:
    type: int
    codec: int
    disk: bytes
    first: int
    count: int
    block_size: int
    offset: int
    stored: int
    digests: list[bytes]
    length: int  # of the plaintext


def parse_footer(c: Cursor, record_count: int) -> list[FooterRecord]:
    c.check(c.u8() == 1, "unknown footer version")
    disks = [c.take(16) for _ in range(c.count(1))]
    c.check(len(set(disks)) == len(disks), "a disk id is repeated")
    c.check(c.varint(1, RECORDS_MAX) == record_count, "the record count is not the trailer's")
    records: list[FooterRecord] = []
    offset, used = SEGMENT_START, 0
    for _ in range(record_count):
        kind, codec, index = c.u8(), c.u8(), c.varint(0, len(disks) - 1)
        c.check(kind in (DATA, PAGE, ATTACHMENT), f"unknown record type {kind}")
        c.check(codec in ((0,) if kind == PAGE else (0, 1)), f"unknown codec {codec}")
        c.check(index <= used, "disk ids are not in order of first use")
        used = max(used, index + 1)
        c.check((disks[index] == NO_DISK) == (kind == ATTACHMENT), "only attachments have no disk")
        first, count, size, stored = c.varint(), c.varint(1, 2**32 - 1), c.varint(1, BLOCK_SIZE_MAX), c.varint(TAG + 1)
        if kind == DATA:
            check_data_record(c, first, count, size)
        elif kind == PAGE:
            c.check(any(count == FAN_OUT**n for n in range(1, 6)) and first % count == 0, "a page covers a power of 64 blocks")
        else:
            c.check(size == CHUNK and first < count, "an attachment chunk is numbered below the chunk count, in chunks of 262144")
        digests = [c.take(16) for _ in range(count)] if kind == DATA else []
        length = c.varint(1, CHUNK) if kind == ATTACHMENT else count * size if kind == DATA else stored - TAG
        check_stored_length(c, codec, stored, length)
        records.append(FooterRecord(kind, codec, disks[index], first, count, size, offset, stored, digests, length))
        offset += stored
    c.check(used == len(disks), "a disk id is not used")
    c.end()
    return records


def check_data_record(c: Cursor, first: int, count: int, block_size: int) -> None:
    c.check(count * block_size <= max(RUN_BYTES_MAX, block_size), "the data record holds too much")
    c.check(first // FAN_OUT == (first + count - 1) // FAN_OUT, "the data record crosses a multiple of 64 blocks")


def check_stored_length(c: Cursor, codec: int, stored: int, plaintext: int) -> None:
    if codec == 0:
        c.check(stored == plaintext + TAG, f"an uncompressed record of {plaintext} bytes cannot take {stored}")
    else:
        c.check(TAG < stored < plaintext + TAG, f"a compressed record of {plaintext} bytes cannot take {stored}")


# §7 block map


@dataclass(frozen=True)
class Run:
    first: int
    ref: Ref
    codec: int
    inside: int
    record_blocks: int
    digests: list[bytes]


@dataclass(frozen=True)
class Child:
    index: int
    ref: Ref
    digest: bytes


@dataclass(frozen=True)
class Page:
    runs: list[Run]
    children: list[Child]


def parse_page(c: Cursor, level: int, index: int, block_size: int, blocks: int) -> Page:
    """`blocks` is how many the disk has: nothing may lie behind them."""
    c.check(c.u8() == 1, "unknown page version")
    c.check(c.u8() == level, f"not a page of level {level}")
    table = [(c.varint(1), c.varint(1, NUMBER_MAX)) for _ in range(c.count(1))]
    c.ascending(table, "the page's segments")
    used: set[int] = set()

    def segment() -> tuple[int, int]:
        at = c.varint(0, len(table) - 1)
        used.add(at)
        return table[at]

    runs = _runs(c, index * FAN_OUT, block_size, blocks, segment) if level == 0 else []
    children = _children(c, level, index, blocks, segment) if level > 0 else []
    c.check(len(used) == len(table), "a segment of the page's table is not used")
    c.end()
    return Page(runs, children)


def _runs(c: Cursor, page_first: int, block_size: int, blocks: int, segment: Callable[[], tuple[int, int]]) -> list[Run]:
    runs: list[Run] = []
    position, page_end = page_first, min(page_first + FAN_OUT, blocks)
    for _ in range(c.varint(1, FAN_OUT)):
        gap, count = c.varint(0, FAN_OUT), c.varint(1, FAN_OUT)
        first = position + gap
        c.check(first + count <= page_end, "a run passes the end of its page or of the disk")
        ref = Ref(*segment(), *_place(c))
        codec, inside, record_blocks = c.u8(), c.varint(0, FAN_OUT), c.varint(1, FAN_OUT)
        c.check(codec in (0, 1), f"unknown codec {codec}")
        c.check(inside + count <= record_blocks, "a run lies outside its record")
        c.check(page_first + inside <= first and first - inside + record_blocks <= page_first + FAN_OUT, "a record lies outside the leaf")
        check_data_record(c, first - inside, record_blocks, block_size)
        check_stored_length(c, codec, ref.stored, record_blocks * block_size)
        last = runs[-1] if runs else None
        touches = last is not None and gap == 0 and last.ref == ref and last.inside + len(last.digests) == inside
        c.check(not touches, "two runs that continue each other are not written as one")
        runs.append(Run(first, ref, codec, inside, record_blocks, [c.take(16) for _ in range(count)]))
        position = first + count
    return runs


def _children(c: Cursor, level: int, index: int, blocks: int, segment: Callable[[], tuple[int, int]]) -> list[Child]:
    present = int.from_bytes(c.take(8), "big")
    c.check(present != 0, "an interior page without children")
    children = []
    for bit in (bit for bit in range(FAN_OUT) if present >> bit & 1):
        child = index * FAN_OUT + bit
        c.check(child * FAN_OUT**level < blocks, "a child lies behind the end of the disk")
        children.append(Child(child, Ref(*segment(), *_place(c)), c.take(16)))
    return children


def _place(c: Cursor) -> tuple[int, int, int]:
    return c.varint(0, RECORDS_MAX - 1), c.varint(SEGMENT_START), c.varint(TAG + 1, 2**32 - 1)


def parse_ref(c: Cursor) -> Ref:
    return Ref(c.varint(1), c.varint(1, NUMBER_MAX), *_place(c))


def segment_name(machine: bytes, tenure: int, number: int) -> str:
    return f"machines/{machine.hex()}/segments/{tenure:016d}/{number:010d}"
