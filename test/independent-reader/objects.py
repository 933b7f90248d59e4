"""Parsers of every object but segments, and of the manifest: docs/format.md §3 to §5 and §8. None of them decrypts."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from primitives import Cursor, PublicKey, Signature, sha256
from segment import BLOCK_SIZE_MAX, BLOCKS_MAX, CHUNK, EPOCH_MAX, FAN_OUT, NO_DISK, NUMBER_MAX, Ref, check_stored_length, parse_ref

INLINE_CONTROL_MAX, SUMMARY_EVERY = 65_536, 64


# §3 repository descriptor


@dataclass(frozen=True)
class Repository:
    repository: bytes
    created: int
    root: PublicKey


def parse_repository(data: bytes) -> Repository:
    c = Cursor(data, "repository")
    c.expect(b"FKRP\0\1", "magic and version")
    repository, created, root = c.take(16), c.u64(), c.public_key()
    signature = c.signature()
    c.end()
    signature.verify(root, "failkit/v1/repository")
    return Repository(repository, created, root)


# §4 trust statements


@dataclass(frozen=True)
class Agent:
    key: PublicKey
    revoked: bool
    cut_offs: dict[bytes, tuple[int, bytes]]  # by machine: the last entry that counts, and its SHA-256

    def counts(self, machine: bytes, seq: int) -> bool:
        return not self.revoked or (machine in self.cut_offs and seq <= self.cut_offs[machine][0])


@dataclass(frozen=True)
class Trust:
    number: int
    digest: bytes
    roots: list[PublicKey]  # oldest first, the last is in force
    lineage: bytes  # as it stands in the statement, without its count
    recovery_key: bytes
    agents: dict[bytes, Agent]
    retention_floor_days: int


def parse_trust(data: bytes, name: str, number: int, descriptor: Repository, before: Trust | None) -> Trust:
    """Statement `number`, which follows `before`."""
    c = Cursor(data, name)
    c.expect(b"FKTS\0\1", "magic and version")
    c.expect(descriptor.repository, "repository id")
    c.check(c.u64() == number, "the statement's number is not the one in its name")
    c.check(c.take(32) == (before.digest if before else bytes(32)), "does not follow the statement before it")
    c.u64()
    in_force = c.public_key()
    count, start = c.count(), c.at
    replaced = [(c.public_key(), c.signature()) for _ in range(count)]
    lineage, roots = data[start : c.at], [key for key, _ in replaced] + [in_force]
    c.check(roots[0] == descriptor.root, "the lineage does not start at the descriptor's root")
    c.check(len(set(roots)) == len(roots), "a root is repeated in the lineage")
    for (key, signature), following in zip(replaced, roots[1:]):
        signature.verify(key, "failkit/v1/root-replacement", descriptor.repository + following.encoded)
    if before:
        steps = len(roots) - len(before.roots)
        c.check(steps in (0, 1) and roots[: len(before.roots)] == before.roots and lineage.startswith(before.lineage),
                "the lineage is not the one before it, nor that with one step more")
    recovery_key = c.bytes_()
    check_recovery_key(c, recovery_key)
    agents = [_agent(c) for _ in range(c.count())]
    c.ascending((a.key.key_id for a in agents), "agents")
    floor = c.varint()
    signature = c.signature()
    c.end()
    signature.verify(in_force, "failkit/v1/trust")
    return Trust(number, sha256(data), roots, lineage, recovery_key, {a.key.key_id: a for a in agents}, floor)


def check_recovery_key(c: Cursor, der: bytes) -> None:
    try:
        key = load_der_public_key(der)
    except ValueError:
        c.fail("the recovery public key is no SubjectPublicKeyInfo")
    c.check(isinstance(key, RSAPublicKey) and key.key_size >= 3072, "the recovery public key is not RSA of 3072 bits or more")


def _agent(c: Cursor) -> Agent:
    key, status = c.public_key(), c.u8()
    c.check(status in (1, 2), f"unknown agent status {status}")
    cut_offs = [(c.take(16), (c.varint(1), c.take(32))) for _ in range(c.count())] if status == 2 else []
    c.ascending((machine for machine, _ in cut_offs), "cut-offs")
    return Agent(key, status == 2, dict(cut_offs))


# §5 key records


@dataclass(frozen=True)
class Wrap:
    provider: str
    key_id: str
    wrapped: bytes


@dataclass(frozen=True)
class KeyRecord:
    name: str
    digest: bytes
    epoch: int
    revision: int
    commitment: bytes
    sealed_machine_keys: bytes
    wraps: list[Wrap]
    maced: bytes
    mac: bytes
    signer: bytes
    signature: Signature


def parse_key_record(data: bytes, name: str, repository: bytes, machine: bytes, epoch: int, revision: int) -> KeyRecord:
    c = Cursor(data, name)
    c.expect(b"FKKR\0\1\0\1", "magic, version and suite")
    c.expect(repository, "repository id")
    c.expect(machine, "machine id")
    c.check((c.u32(), c.u32()) == (epoch, revision), "epoch and revision are not those in the name")
    c.u64()
    commitment, sealed = c.take(32), c.take(92)
    wraps = [Wrap(c.text(), c.text(), c.bytes_()) for _ in range(c.count(1))]
    c.check(len({(w.provider, w.key_id) for w in wraps}) == len(wraps), "a wrap is repeated")
    maced = c.before()
    mac, signer, signature = c.take(32), c.take(16), c.signature()
    c.end()
    return KeyRecord(name, sha256(data), epoch, revision, commitment, sealed, wraps, maced, mac, signer, signature)


# §8 chain


@dataclass(frozen=True)
class Begin:
    adopts: int | None
    epoch: int
    key_record: bytes


@dataclass(frozen=True)
class Publish:
    epoch: int
    watermark: int
    immutable_until: int
    sealed: bytes
    offset: int


@dataclass(frozen=True)
class Prune:
    seqs: list[int]


@dataclass(frozen=True)
class Lock:
    generation: int
    until: int


@dataclass(frozen=True)
class Rekey:
    epoch: int
    key_record: bytes


Body = Begin | Publish | Prune | Lock | Rekey


@dataclass(frozen=True)
class ExternalControl:
    length: int
    digest: bytes


@dataclass(frozen=True)
class Entry:
    name: str
    digest: bytes
    seq: int
    previous: bytes
    time: int
    tenure: int
    trust: int
    body: Body
    control: Cursor | ExternalControl
    signer: bytes
    signature: Signature


def parse_entry(data: bytes, name: str, repository: bytes, machine: bytes, seq: int) -> Entry:
    c = Cursor(data, name)
    c.expect(b"FKCE\0\1", "magic and version")
    kind = c.u8()
    c.expect(repository, "repository id")
    c.expect(machine, "machine id")
    c.check(c.u64() == seq, "the entry's seq is not the one in its name")
    previous = c.take(32)
    c.check(seq > 1 or previous == bytes(32), "entry 1 follows another one")
    c.take(16)
    time, tenure, trust = c.u64(), c.u64(), c.u64()
    c.check(1 <= tenure <= seq, "the tenure is not a seq up to this one")
    inner = c.sub(c.varint())
    body = _body(inner, kind, seq)
    inner.end()
    c.check((tenure == seq) == isinstance(body, Begin), "a begin, and only a begin, has its own seq as tenure")
    c.check(seq != 1 or isinstance(body, Begin), "entry 1 is not a begin")
    control = _control(c)
    signer, signature = c.take(16), c.signature()
    c.end()
    return Entry(name, sha256(data), seq, previous, time, tenure, trust, body, control, signer, signature)


def _body(c: Cursor, kind: int, seq: int) -> Body:
    if kind == 1:
        adopts = c.varint(1, seq - 1) if c.flag("adopts") else None
        return Begin(adopts, c.varint(1, EPOCH_MAX), c.take(32))
    if kind == 2:
        epoch, watermark, until, length = c.varint(1, EPOCH_MAX), c.varint(), c.varint(), c.varint()
        offset = c.base + c.at
        return Publish(epoch, watermark, until, c.take(length), offset)
    if kind == 3:
        seqs = [c.varint(1, seq - 1) for _ in range(c.count(1))]
        c.ascending(seqs, "pruned points")
        return Prune(seqs)
    if kind == 4:
        return Lock(c.varint(), c.varint())
    if kind == 5:
        return Rekey(c.varint(1, EPOCH_MAX), c.take(32))
    c.fail(f"unknown entry type {kind}")


def _control(c: Cursor) -> Cursor | ExternalControl:
    if c.flag("external control"):
        return ExternalControl(c.varint(), c.take(32))
    return c.sub(c.varint(0, INLINE_CONTROL_MAX))


def open_control_object(data: bytes, name: str, repository: bytes, machine: bytes, seq: int, external: ExternalControl) -> Cursor:
    c = Cursor(data, name)
    c.check(len(data) == external.length and sha256(data) == external.digest, "not the control object that the entry names")
    c.expect(b"FKCO\0\1", "magic and version")
    c.expect(repository, "repository id")
    c.expect(machine, "machine id")
    c.check(c.u64() == seq, "the seq is not the one in the name")
    c.check(len(data) - c.at > INLINE_CONTROL_MAX, "content that fits the entry is not inline")
    return c


@dataclass(frozen=True)
class SegmentState:
    size: int
    units: int
    dead: int
    birth: int
    death: int
    digest: bytes


@dataclass(frozen=True)
class Summary:
    tenure: int
    owner: bytes  # key id of the agent that signed the tenure's begin
    published: bool
    watermark: int
    epochs: dict[int, bytes]  # SHA-256 of revision 0 of their key records; the greatest is in force
    adopted: dict[int, int]  # tenure, and its last watermark
    lock: tuple[int, int]
    points: dict[int, tuple[int, bytes]]
    segments: dict[tuple[int, int], SegmentState]


@dataclass(frozen=True)
class Control:
    births: dict[tuple[int, int], tuple[int, int, bytes]]  # size, units, SHA-256
    deaths: dict[tuple[int, int], int]
    summary: Summary | None


def parse_control(c: Cursor, publishes: bool, seq: int) -> Control:
    births, deaths = [], []
    if publishes:
        births = [(_address(c), (c.varint(1), c.varint(1), c.take(32))) for _ in range(c.count())]
        c.ascending((b[0] for b in births), "births")
        deaths = [(_address(c), c.varint(1)) for _ in range(c.count())]
        c.ascending((d[0] for d in deaths), "deaths")
    summary = _summary(c, seq) if seq % SUMMARY_EVERY == 0 else None
    c.end()
    return Control(dict(births), dict(deaths), summary)


def _address(c: Cursor) -> tuple[int, int]:
    return c.varint(1), c.varint(1, NUMBER_MAX)


def _summary(c: Cursor, seq: int) -> Summary:
    tenure, owner, published, watermark = c.varint(1, seq), c.take(16), c.flag("has published"), c.varint()
    epochs = [(c.varint(1, EPOCH_MAX), c.take(32)) for _ in range(c.count(1))]
    c.ascending((e[0] for e in epochs), "epochs")
    adopted = [(c.varint(1, tenure - 1), c.varint()) for _ in range(c.count())]
    c.ascending((a[0] for a in adopted), "adopted tenures")
    lock = (c.varint(), c.varint())
    points = [(c.varint(1, seq), (c.varint(), c.take(32))) for _ in range(c.count())]
    c.ascending((p[0] for p in points), "points")
    segments = [(_address(c), SegmentState(c.varint(1), c.varint(1), c.varint(), c.varint(1, seq), c.varint(0, seq), c.take(32)))
                for _ in range(c.count())]
    c.ascending((s[0] for s in segments), "segments")
    for at, s in segments:
        c.check(s.dead <= s.units and (s.dead == s.units) == (s.death > 0), f"segment {at} has a death that its units do not show")
    return Summary(tenure, owner, published, watermark, dict(epochs), dict(adopted), lock, dict(points), dict(segments))


# §8.1 manifest


@dataclass(frozen=True)
class Disk:
    disk: bytes
    label: str
    generation: int
    block_size: int
    capacity: int
    full_read_reason: str
    generation_reason: str
    reference_point: bytes | None
    root: tuple[Ref, bytes] | None

    @property
    def blocks(self) -> int:
        return -(-self.capacity // self.block_size)

    @property
    def root_level(self) -> int:
        level = 0
        while FAN_OUT ** (level + 1) < self.blocks:
            level += 1
        return level


@dataclass(frozen=True)
class Attachment:
    name: str
    length: int
    digest: bytes
    chunks: list[tuple[int, Ref]]


@dataclass(frozen=True)
class Manifest:
    machine_name: str
    source_kind: str
    snapshot_time: int
    consistency: str
    bytes_read: int
    bytes_changed: int
    bytes_uploaded: int
    disks: list[Disk]
    excluded: list[tuple[str, str]]
    attachments: list[Attachment]
    remarks: dict[int, bytes]

    @property
    def flag(self) -> str | None:
        return self.remarks[FLAG].decode() if FLAG in self.remarks else None


FLAG = 1
CONSISTENCIES = {1: "crash-consistent", 2: "application-consistent", 3: "inconsistent"}


def parse_manifest(c: Cursor) -> Manifest:
    version = c.u8()
    c.check(version in (1, 2), "unknown manifest version")
    name, kind, time, consistency = c.text(), c.text(), c.varint(), c.u8()
    c.check(consistency in CONSISTENCIES, f"unknown consistency {consistency}")
    read, changed, uploaded = c.varint(), c.varint(), c.varint()
    disks = [_disk(c) for _ in range(c.count())]
    excluded = [(c.text(), c.text()) for _ in range(c.count())]
    labels = [d.label for d in disks] + [label for label, _ in excluded]
    c.check(len({d.disk for d in disks}) == len(disks) and len(set(labels)) == len(labels), "a disk is repeated")
    attachments = [_attachment(c) for _ in range(c.count())]
    c.check(len({a.name for a in attachments}) == len(attachments), "an attachment is repeated")
    remarks = _remarks(c) if version == 2 else {}
    c.end()
    return Manifest(name, kind, time, CONSISTENCIES[consistency], read, changed, uploaded, disks, excluded, attachments, remarks)


def _remarks(c: Cursor) -> dict[int, bytes]:
    remarks: dict[int, bytes] = {}
    for _ in range(c.count()):
        kind = c.varint(1)
        c.check(kind > max(remarks, default=0), "remarks are out of order")
        remarks[kind] = c.text().encode() if kind == FLAG else c.bytes_()
        c.check(len(remarks[kind]) > 0, "a remark without a value")
    c.check(len(remarks) > 0, "version 2 without remarks")
    return remarks


def _disk(c: Cursor) -> Disk:
    disk, label, generation = c.take(16), c.text(), c.varint()
    c.check(disk != NO_DISK, "a disk id of zeros")
    block_size, capacity = c.varint(1, BLOCK_SIZE_MAX), c.varint(1)
    full_read, reason = c.text(), c.text()
    reference = c.bytes_() if c.flag("has reference point") else None
    root = (parse_ref(c), c.take(16)) if c.flag("has root") else None
    result = Disk(disk, label, generation, block_size, capacity, full_read, reason, reference, root)
    c.check(result.blocks <= BLOCKS_MAX, f"the disk has more than {BLOCKS_MAX} blocks")
    return result


def _attachment(c: Cursor) -> Attachment:
    name = c.text()
    c.check(name not in (".", "..") and re.fullmatch(r"[A-Za-z0-9._-]{1,100}", name) is not None, f"{name!r} is no name for an attachment")
    length, digest = c.varint(), c.take(32)
    count, chunks = -(-length // CHUNK), []
    c.check(count <= len(c.data) - c.at, "the attachment has more chunks than the manifest has bytes")
    for index in range(count):
        codec, ref = c.u8(), parse_ref(c)
        c.check(codec in (0, 1), f"unknown codec {codec}")
        check_stored_length(c, codec, ref.stored, min(CHUNK, length - index * CHUNK))
        chunks.append((codec, ref))
    return Attachment(name, length, digest, chunks)
