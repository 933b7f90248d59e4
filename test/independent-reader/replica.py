"""Walks a bucket as docs/format.md §8 and §9 describe: trust, chain, keys, manifest, map, records."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import objects as o
import segment as sg
from objects import SegmentState
from primitives import Bucket, Cursor, DataKey, FormatError, decompress, dec, fingerprint, gcm_open, hmac_sha256, inv
from primitives import numbered, same, sha256
from segment import Ref

Unwrap = Callable[[o.Wrap, bytes], bytes | None]
"""Gives the data key of a wrap, for a key context; None where the wrap is for another key."""


def open_repository(bucket: Bucket, root: str) -> tuple[o.Repository, o.Trust]:
    """§9 step 1. Fails unless the customer's root key, known by its fingerprint, vouches for the bucket."""
    repository = o.parse_repository(bucket.get("repository"))
    numbers = numbered(bucket, "trust/", 16, inverted=True)
    trust: o.Trust | None = None
    for number in range(max(numbers, default=-1) + 1):
        name = f"trust/{inv(number)}"
        trust = o.parse_trust(bucket.get(name), name, number, repository, trust)
    if trust is None:
        raise FormatError("trust/", 0, "no trust statement")
    fingerprints = [fingerprint(key) for key in trust.roots]
    if root not in fingerprints:
        raise FormatError("repository", 0, f"neither the root key in force nor one that it replaced has the fingerprint {root}")
    if root != fingerprints[-1]:
        print(f"repository: the root key {root} was replaced; in force is {fingerprints[-1]}", file=sys.stderr)
    return repository, trust


@dataclass
class State:
    """What a summary says: the machine after some entry."""

    tenure: int = 0
    adopted: dict[int, int] = field(default_factory=dict)  # tenure, and its last watermark
    owner: bytes = b""  # key id of the agent that signed the tenure's begin
    published: bool = False
    watermark: int = 0
    epochs: dict[int, bytes] = field(default_factory=dict)  # SHA-256 of revision 0 of their key records, ascending
    lock: tuple[int, int] = (0, 0)
    points: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    segments: dict[tuple[int, int], SegmentState] = field(default_factory=dict)
    newest_publish: int = 0  # pruned or not; 0 where the walk met none

    @staticmethod
    def after(entry: o.Entry, summary: o.Summary) -> State:
        points = dict(summary.points)
        if entry.seq in points:
            points[entry.seq] = (entry.time, entry.digest)
        return State(summary.tenure, dict(summary.adopted), summary.owner, summary.published, summary.watermark, dict(summary.epochs),
                     summary.lock, points, dict(summary.segments))

    @property
    def epoch(self) -> int:
        """The one in force."""
        return max(self.epochs, default=0)

    def apply(self, entry: o.Entry, control: o.Control) -> None:
        c = Cursor(b"", entry.name)
        match entry.body:
            case o.Begin(adopts, epoch, digest):
                c.check(adopts in (None, self.tenure), f"adopts tenure {adopts}, tenure {self.tenure} was in force")
                self.adopted = {} if adopts is None else {**self.adopted, adopts: self.watermark}
                self.tenure, self.owner, self.watermark, self.published = entry.seq, entry.signer, 0, False
                self._key_record(c, epoch, digest)
            case o.Publish(epoch, watermark):
                c.check(epoch == self.epoch, f"publishes in epoch {epoch}, epoch {self.epoch} is in force")
                c.check(watermark >= self.watermark, "the watermark falls")
                self._check_owner(c, entry)
                self._count_segments(c, entry, control, watermark)
                self.points[entry.seq] = (entry.time, entry.digest)
                self.watermark, self.published, self.adopted = watermark, True, {}
                self.newest_publish = entry.seq
            case o.Prune(seqs):
                c.check(not self.points or max(self.points) not in seqs, "prunes the newest point")
                for seq in seqs:
                    c.check(self.points.pop(seq, None) is not None, f"prunes {seq}, which is no retained point")
            case o.Lock(generation, until):
                c.check(generation >= self.lock[0], f"goes back to lock generation {generation}")
                self.lock = (generation, max(self.lock[1], until))
            case o.Rekey(epoch, digest):
                self._check_owner(c, entry)
                c.check(epoch > self.epoch, "rekeys to an epoch that is not new")
                self._key_record(c, epoch, digest)
        c.check(entry.tenure == self.tenure, f"carries tenure {entry.tenure}, tenure {self.tenure} is in force")
        self.segments = {at: s for at, s in self.segments.items()
                         if s.death == 0 or any(s.birth <= seq < s.death for seq in self.points)}

    def _key_record(self, c: Cursor, epoch: int, digest: bytes) -> None:
        c.check(epoch >= self.epoch, "the epoch falls")
        c.check(self.epochs.setdefault(epoch, digest) == digest, f"another key record for epoch {epoch}")

    def _check_owner(self, c: Cursor, entry: o.Entry) -> None:
        c.check(entry.signer == self.owner, f"signed by {entry.signer.hex()}, but {self.owner.hex()} began the tenure")

    def _count_segments(self, c: Cursor, entry: o.Entry, control: o.Control, watermark: int) -> None:
        for at, (size, units, digest) in control.births.items():
            tenure, number = at
            fresh = self.watermark < number <= watermark if tenure == self.tenure else number > self.adopted.get(tenure, sg.NUMBER_MAX)
            c.check(fresh and at not in self.segments, f"segment {at} cannot be born here")
            self.segments[at] = SegmentState(size, units, 0, entry.seq, 0, digest)
        for at, died in control.deaths.items():
            c.check(at in self.segments, f"units die in segment {at}, which has none")
            s = self.segments[at]
            c.check(s.dead + died <= s.units, f"more units die in segment {at} than it has")
            self.segments[at] = replace(s, dead=s.dead + died, death=entry.seq if s.dead + died == s.units else 0)

    def check_summary(self, entry: o.Entry, summary: o.Summary) -> None:
        points = {seq: (time, bytes(32) if seq == entry.seq else digest) for seq, (time, digest) in self.points.items()}
        mine = o.Summary(self.tenure, self.owner, self.published, self.watermark, self.epochs, self.adopted, self.lock, points, self.segments)
        for what in ("tenure", "owner", "published", "adopted", "watermark", "epochs", "lock", "points", "segments"):
            if getattr(mine, what) != getattr(summary, what):
                raise FormatError(entry.name, 0, f"the summary's {what} is not what the chain says")


class Machine:
    """The chain of one machine, walked from its head, and the keys that open its points."""

    def __init__(self, bucket: Bucket, repository: o.Repository, trust: o.Trust, machine: bytes, unwrap: Unwrap, whole_chain: bool) -> None:
        self.bucket, self.repository, self.trust, self.machine, self.unwrap = bucket, repository, trust, machine, unwrap
        self.prefix = f"machines/{machine.hex()}/"
        self.keys: dict[int, tuple[DataKey, bytes]] = {}
        self.headers: dict[tuple[int, int], tuple[sg.SegmentHeader, bytes, bytes]] = {}
        self.head, self.state = self._walk(whole_chain)

    def _walk(self, whole_chain: bool) -> tuple[int, State]:
        """§9 step 2. From the head to the newest summary (or to entry 1), then forward again."""
        head = max(numbered(self.bucket, f"{self.prefix}chain/", 16, inverted=True), default=0)
        if head == 0:
            raise FormatError(f"{self.prefix}chain/", 0, "no entry")
        walked: list[o.Entry] = []
        for seq in range(head, 0, -1):
            walked.append(self._entry(seq, walked[-1] if walked else None))
            if not whole_chain and seq % o.SUMMARY_EVERY == 0 and self._counts(walked[-1]):
                break
        state = State()
        for entry in reversed(walked):
            if not self._counts(entry):
                print(f"{entry.name}: written by a revoked agent after its cut-off; without effect", file=sys.stderr)
                continue
            control = self._control(entry)
            if entry is walked[-1] and control.summary:
                state = State.after(entry, control.summary)
                continue
            state.apply(entry, control)
            if control.summary:
                state.check_summary(entry, control.summary)
        return head, state

    def _entry(self, seq: int, following: o.Entry | None) -> o.Entry:
        name = f"{self.prefix}chain/{inv(seq)}"
        entry = o.parse_entry(self.bucket.get(name), name, self.repository.repository, self.machine, seq)
        if following and following.previous != entry.digest:
            raise FormatError(name, 0, f"not the entry that entry {following.seq} follows")
        agent = self._agent(entry.signer, name)
        entry.signature.verify(agent.key, "failkit/v1/chain-entry")
        if agent.cut_offs.get(self.machine, (0, b""))[0] == seq and agent.cut_offs[self.machine][1] != entry.digest:
            raise FormatError(name, 0, "not the entry at which the root key revoked its agent")
        if entry.trust > self.trust.number and self._counts(entry):
            raise FormatError(name, 0, f"knows trust statement {entry.trust}, the newest here is {self.trust.number}: the bucket was rolled back")
        return entry

    def _agent(self, key_id: bytes, name: str) -> o.Agent:
        if key_id not in self.trust.agents:
            raise FormatError(name, 0, f"signed by {key_id.hex()}, which trust statement {self.trust.number} does not list")
        return self.trust.agents[key_id]

    def _counts(self, entry: o.Entry) -> bool:
        return self.trust.agents[entry.signer].counts(self.machine, entry.seq)

    def _control(self, entry: o.Entry) -> o.Control:
        cursor = entry.control
        if isinstance(cursor, o.ExternalControl):
            name = f"{self.prefix}control/{dec(entry.seq, 16)}-{cursor.digest.hex()[:32]}"
            cursor = o.open_control_object(self.bucket.get(name), name, self.repository.repository, self.machine, entry.seq, cursor)
        return o.parse_control(cursor, isinstance(entry.body, o.Publish), entry.seq)

    def point(self, seq: int) -> tuple[o.Entry, o.Manifest]:
        """§9 steps 2 to 4: the entry of a retained point, and its manifest."""
        name = f"{self.prefix}chain/{inv(seq)}"
        if seq not in self.state.points:
            raise FormatError(name, 0, f"{seq} is no recovery point, or was pruned; there are {sorted(self.state.points)}")
        entry = self._entry(seq, None)
        if (entry.time, entry.digest) != self.state.points[seq] or not isinstance(entry.body, o.Publish):
            raise FormatError(name, 0, "not the entry that the summary names")
        if not self._counts(entry):
            raise FormatError(name, 0, "published by a revoked agent after its cut-off")
        return entry, self._manifest(entry, entry.body)

    def digest_key(self, epoch: int) -> bytes:
        """The key of the block digests in segments of this epoch."""
        return self.data_key(epoch)[1]

    def _check_epoch(self, entry: o.Entry, ref: Ref) -> int:
        """§9 step 3: no point uses a segment of an epoch above its own."""
        epoch = self.segment(ref.tenure, ref.number)[0].epoch
        if not isinstance(entry.body, o.Publish) or epoch > entry.body.epoch:
            raise FormatError(sg.segment_name(self.machine, ref.tenure, ref.number), 0, f"of epoch {epoch}, above that of point {entry.seq}")
        return epoch

    def _manifest(self, entry: o.Entry, publish: o.Publish) -> o.Manifest:
        c = Cursor(publish.sealed, entry.name, publish.offset)
        salt, commitment, base = c.take(32), c.take(32), publish.offset + 64
        header = (self.repository.repository + self.machine + entry.seq.to_bytes(8, "big") + entry.tenure.to_bytes(8, "big")
                  + publish.epoch.to_bytes(4, "big") + salt)
        key, nonce, expected = self.data_key(publish.epoch)[0].derive_committed("failkit/v1/manifest", header)
        c.check(same(commitment, expected), "the manifest's commitment is wrong: sealed with another data key")
        plain = gcm_open(key, nonce, publish.sealed[64:], header, entry.name, base)
        manifest = o.parse_manifest(Cursor(plain, f"manifest in {entry.name}"))
        for attachment in manifest.attachments:
            for _, ref in attachment.chunks:
                self._check_kept(entry, ref)
        return manifest

    def _check_kept(self, entry: o.Entry, ref: Ref) -> None:
        """§8.2: a point uses only segments that were born by then and have not died: others may be deleted."""
        state = self.state.segments.get((ref.tenure, ref.number))
        if state is None or state.birth > entry.seq or 0 < state.death <= entry.seq:
            name = sg.segment_name(self.machine, ref.tenure, ref.number)
            raise FormatError(name, ref.offset, f"point {entry.seq} uses it, but by the chain it may be deleted")

    def data_key(self, epoch: int) -> tuple[DataKey, bytes]:
        """§9 step 3: the data key of an epoch and its digest key."""
        if epoch not in self.keys:
            self.keys[epoch] = self._open_key_record(epoch)
        return self.keys[epoch]

    def _open_key_record(self, epoch: int) -> tuple[DataKey, bytes]:
        """§5: the highest revision that counts and that the key at hand opens."""
        prefix = f"{self.prefix}keys/{dec(epoch, 8)}/"
        name = f"{prefix}0000"
        if epoch not in self.state.epochs:
            raise FormatError(name, 0, f"the chain names no epoch {epoch}")
        first = o.parse_key_record(self.bucket.get(name), name, self.repository.repository, self.machine, epoch, 0)
        if first.digest != self.state.epochs[epoch]:
            raise FormatError(name, 0, "not the key record that the chain names")
        names = numbered(self.bucket, prefix, 4)
        later = (self._later_revision(first, names[revision], revision) for revision in sorted(names, reverse=True) if revision > 0)
        for record in (*later, first):
            opened = self._unwrap(record) if record else None
            if opened:
                return opened
        raise FormatError(prefix, 0, "no wrap that this key opens")

    def _later_revision(self, first: o.KeyRecord, name: str, revision: int) -> o.KeyRecord | None:
        """None, and a warning, where it does not count: anybody who may write to the bucket can put such a thing there."""
        try:
            record = o.parse_key_record(self.bucket.get(name), name, self.repository.repository, self.machine, first.epoch, revision)
            agent = self._agent(record.signer, name)
            record.signature.verify(agent.key, "failkit/v1/key-record")
            if agent.revoked or record.commitment != first.commitment:
                raise FormatError(name, 0, "signed by a revoked agent, or for another data key")
        except FormatError as error:
            print(f"{error}; this revision of the key record does not count", file=sys.stderr)
            return None
        return record

    def _unwrap(self, record: o.KeyRecord) -> tuple[DataKey, bytes] | None:
        ids = self.repository.repository + self.machine + record.epoch.to_bytes(4, "big")
        for wrap in record.wraps:
            key = self.unwrap(wrap, b"failkit/v1/key-context\0" + ids)
            if key is not None:
                break
        else:
            return None
        data_key = DataKey(key, self.repository.repository, self.machine, record.epoch)
        if not same(record.commitment, data_key.derive("failkit/v1/data-key-commitment", b"", 32)):
            raise FormatError(record.name, 0, "the commitment is wrong: a wrap holds another data key")
        if not same(record.mac, hmac_sha256(data_key.derive("failkit/v1/key-record-mac", b"", 32), record.maced)):
            raise FormatError(record.name, len(record.maced), "the mac is wrong")
        sealed, aad = record.sealed_machine_keys, ids + record.revision.to_bytes(4, "big")
        keys = gcm_open(data_key.derive("failkit/v1/machine-keys", record.revision.to_bytes(4, "big"), 32), sealed[:12], sealed[12:], aad, record.name, 0)
        return data_key, keys[:32]

    def segment(self, tenure: int, number: int) -> tuple[sg.SegmentHeader, bytes, bytes]:
        """A segment's header, its AES key and its base nonce."""
        if (tenure, number) not in self.headers:
            name = sg.segment_name(self.machine, tenure, number)
            data = self.bucket.get_range(name, 0, sg.SEGMENT_START)
            header = sg.parse_segment_header(data, name, self.repository.repository, self.machine, tenure, number)
            if header.epoch > self.state.epoch:
                raise FormatError(name, 0, f"of epoch {header.epoch}, but {self.state.epoch} is in force")
            key, nonce, commitment = self.data_key(header.epoch)[0].derive_committed("failkit/v1/segment", header.header)
            if not same(commitment, header.commitment):
                raise FormatError(name, sg.HEADER_BYTES, "the segment's commitment is wrong: another data key, or another header")
            self.headers[tenure, number] = header, key, nonce
        return self.headers[tenure, number]

    def open_record(self, ref: Ref, kind: int, codec: int, disk: bytes, first: int, count: int, block_size: int,
                    length: int, digest: bytes | None = None) -> bytes:
        """Opens one record at its address; `length` is that of its plaintext."""
        name = sg.segment_name(self.machine, ref.tenure, ref.number)
        _, key, nonce = self.segment(ref.tenure, ref.number)
        sealed = self.bucket.get_range(name, ref.offset, ref.stored)
        if digest is not None and sha256(sealed)[:16] != digest:
            raise FormatError(name, ref.offset, "the page's digest is wrong")
        numbers = [(ref.record, 4), (first, 8), (count, 4), (block_size, 4), (length, 4)]
        aad = bytes([kind, codec]) + disk + b"".join(value.to_bytes(width, "big") for value, width in numbers)
        record_nonce = nonce[:8] + (int.from_bytes(nonce[8:], "big") ^ ref.record).to_bytes(4, "big")
        body = gcm_open(key, record_nonce, sealed, aad, name, ref.offset)
        plain = decompress(body, length, name, ref.offset) if codec == 1 else body
        if len(plain) != length:
            raise FormatError(name, ref.offset, f"holds {len(plain)} bytes, not {length}")
        return plain

    def pages(self, entry: o.Entry, disk: o.Disk) -> Iterator[tuple[Ref, sg.Page]]:
        """The disk's block map, a page before its children, runs in order of blocks."""
        if disk.root:
            yield from self._pages(entry, disk, disk.root_level, 0, *disk.root)

    def _pages(self, entry: o.Entry, disk: o.Disk, level: int, index: int, ref: Ref, digest: bytes) -> Iterator[tuple[Ref, sg.Page]]:
        self._check_kept(entry, ref)
        self._check_epoch(entry, ref)
        covers = sg.FAN_OUT ** (level + 1)
        plain = self.open_record(ref, sg.PAGE, 0, disk.disk, index * covers, covers, disk.block_size, ref.stored - sg.TAG, digest)
        where = f"page {level}/{index} in {sg.segment_name(self.machine, ref.tenure, ref.number)} at {ref.offset}"
        page = sg.parse_page(Cursor(plain, where), level, index, disk.block_size, disk.blocks)
        yield ref, page
        for child in page.children:
            yield from self._pages(entry, disk, level - 1, child.index, child.ref, child.digest)

    def blocks(self, entry: o.Entry, disk: o.Disk) -> Iterator[tuple[int, bytes]]:
        """Every block that is not a hole, checked against its digest."""
        record, opened = None, b""
        for run in (run for _, page in self.pages(entry, disk) for run in page.runs):
            self._check_kept(entry, run.ref)
            digest_key = self.digest_key(self._check_epoch(entry, run.ref))
            if record != run.ref:
                record, size = run.ref, disk.block_size
                opened = self.open_record(run.ref, sg.DATA, run.codec, disk.disk, run.first - run.inside, run.record_blocks, size,
                                          run.record_blocks * size)
            name = sg.segment_name(self.machine, run.ref.tenure, run.ref.number)
            for at, digest in enumerate(run.digests):
                block = opened[(run.inside + at) * disk.block_size :][: disk.block_size]
                if hmac_sha256(digest_key, block)[:16] != digest:
                    raise FormatError(name, run.ref.offset, f"the digest of block {run.first + at} is wrong")
                if any(block[max(0, disk.capacity - (run.first + at) * disk.block_size) :]):
                    raise FormatError(name, run.ref.offset, "the last block is not padded with zeros")
                yield run.first + at, block

    def check_units(self, entry: o.Entry, manifest: o.Manifest) -> None:
        """§8.2, at the newest publish: the units that it uses are those that have not died."""
        used = Counter((r.tenure, r.number) for a in manifest.attachments for _, r in a.chunks)
        for ref, page in (found for disk in manifest.disks for found in self.pages(entry, disk)):
            used[ref.tenure, ref.number] += 1
            for run in page.runs:
                used[run.ref.tenure, run.ref.number] += len(run.digests)
        for (tenure, number), state in self.state.segments.items():
            if state.units - state.dead != used[tenure, number]:
                raise FormatError(sg.segment_name(self.machine, tenure, number), 0, f"{used[tenure, number]} of its units are in use, "
                                  f"by the chain {state.units - state.dead} of {state.units} are")

    def footer(self, tenure: int, number: int, data: bytes) -> list[sg.FooterRecord]:
        """§6, from the trailer back: the records of a whole segment."""
        name = sg.segment_name(self.machine, tenure, number)
        c = Cursor(data[-sg.TRAILER_BYTES :], name, max(0, len(data) - sg.TRAILER_BYTES))
        stored, count = c.u32(), c.u32()
        c.expect(b"GSKF", "end of the trailer")
        offset = len(data) - sg.TRAILER_BYTES - stored
        c.check(stored > sg.TAG and offset > sg.SEGMENT_START and 1 <= count <= sg.RECORDS_MAX, "a trailer that does not fit the segment")
        ref = Ref(tenure, number, 0xFFFFFFFF, offset, stored)
        plain = self.open_record(ref, sg.FOOTER, 0, sg.NO_DISK, 0, count, 0, stored - sg.TAG)
        records = sg.parse_footer(Cursor(plain, f"footer of {name}"), count)
        if records[-1].offset + records[-1].stored != offset:
            raise FormatError(name, offset, "the records do not end where the footer starts")
        return records
