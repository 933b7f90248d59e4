"""A small writer, straight from docs/format.md, that makes the buckets of test_reader.py. It holds everything in memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

import zstandard
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from primitives import CURVES, DataKey, PublicKey, dec, hmac_sha256, inv, sha256

NOW = 1_800_000_000_000
CHUNK = 262_144
Address = tuple[int, int]


def u(value: int, width: int) -> bytes:
    return value.to_bytes(width, "big")


def varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def bytes_(value: bytes) -> bytes:
    return varint(len(value)) + value


def text(value: str) -> bytes:
    return bytes_(value.encode())


def listed(entries: list[bytes]) -> bytes:
    return varint(len(entries)) + b"".join(entries)


class Signer:
    def __init__(self) -> None:
        self.private = Ed25519PrivateKey.generate()
        self.public = PublicKey(1, self.private.public_key().public_bytes_raw())

    def sign(self, domain: str, message: bytes) -> bytes:
        return bytes([self.public.algorithm]) + self.value(domain.encode() + b"\0" + bytes([self.public.algorithm]) + message)

    def value(self, signed: bytes) -> bytes:
        return self.private.sign(signed)

    def signed(self, domain: str, message: bytes) -> bytes:
        return message + self.sign(domain, message)


class EcdsaSigner(Signer):
    """Algorithm 2 or 3."""

    def __init__(self, algorithm: int) -> None:
        self.curve, self.digest, self.order = CURVES[algorithm]
        self.own = ec.generate_private_key(self.curve)
        encoding, form = serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
        self.public = PublicKey(algorithm, self.own.public_key().public_bytes(encoding, form))

    def value(self, signed: bytes) -> bytes:
        r, s = decode_dss_signature(self.own.sign(signed, ec.ECDSA(self.digest)))
        length = self.curve.key_size // 8
        return r.to_bytes(length, "big") + min(s, self.order - s).to_bytes(length, "big")


@dataclass(frozen=True)
class Place:
    """Where a sealed record lies."""

    tenure: int
    number: int
    record: int
    offset: int
    stored: int
    digest: bytes

    @property
    def ref(self) -> bytes:
        return b"".join(varint(n) for n in (self.tenure, self.number, self.record, self.offset, self.stored))


@dataclass(frozen=True)
class BlockPlace:
    place: Place
    codec: int
    inside: int
    record_blocks: int
    digest: bytes


@dataclass
class DiskModel:
    disk: bytes
    label: str
    block_size: int
    capacity: int
    content: dict[int, bytes] = field(default_factory=dict)
    blocks: dict[int, BlockPlace] = field(default_factory=dict)
    pages: dict[tuple[int, int], Place] = field(default_factory=dict)

    @property
    def level(self) -> int:
        level = 0
        while 64 ** (level + 1) * self.block_size < self.capacity:
            level += 1
        return level

    def image(self) -> bytes:
        image = bytearray(-(-self.capacity // self.block_size) * self.block_size)
        for block, data in self.content.items():
            image[block * self.block_size : (block + 1) * self.block_size] = data.ljust(self.block_size, b"\0")
        return bytes(image[: self.capacity])


class Segment:
    def __init__(self, writer: MachineWriter, number: int) -> None:
        self.tenure, self.number, self.writer = writer.tenure, number, writer
        ids = writer.repository + writer.machine
        self.header = b"FKSG\0\1\0\1" + ids + u(self.tenure, 8) + u(number, 4) + u(writer.epoch, 4) + bytes(8) + os.urandom(32)
        self.key, self.nonce, commitment = writer.data_keys[writer.epoch].derive_committed("failkit/v1/segment", self.header)
        self.data, self.disks, self.entries, self.units = bytearray(self.header + commitment), list[bytes](), list[bytes](), 0

    def seal(self, record: int, kind: int, codec: int, disk: bytes, first: int, count: int, size: int, plain: bytes) -> bytes:
        body = zstandard.compress(plain) if codec else plain
        aad = bytes([kind, codec]) + disk + u(record, 4) + u(first, 8) + u(count, 4) + u(size, 4) + u(len(plain), 4)
        return AESGCM(self.key).encrypt(self.nonce[:8] + u(int.from_bytes(self.nonce[8:], "big") ^ record, 4), body, aad)

    def add(self, kind: int, codec: int, disk: bytes, first: int, count: int, size: int, plain: bytes, digests: list[bytes]) -> Place:
        record, offset = len(self.entries), len(self.data)
        sealed = self.seal(record, kind, codec, disk, first, count, size, plain)
        self.data += sealed
        if disk not in self.disks:
            self.disks.append(disk)
        numbers = [self.disks.index(disk), first, count, size, len(sealed)]
        entry = bytes([kind, codec]) + b"".join(varint(n) for n in numbers) + b"".join(digests) + (varint(len(plain)) if kind == 3 else b"")
        self.entries.append(self.writer.alter("footer entry", entry))
        self.units += count if kind == 1 else 1
        return Place(self.tenure, self.number, record, offset, len(sealed), sha256(sealed)[:16])

    def close(self) -> bytes:
        footer = b"\1" + listed(self.disks) + listed(self.entries)
        sealed = self.seal(0xFFFFFFFF, 4, 0, bytes(16), 0, len(self.entries), 0, self.writer.alter("footer", footer))
        return bytes(self.data) + sealed + u(len(sealed), 4) + u(len(self.entries), 4) + b"GSKF"


@dataclass
class SegmentRow:
    size: int
    units: int
    dead: int
    birth: int
    death: int
    digest: bytes


class RepositoryWriter:
    """`alter` may change any encoding before it is sealed or signed: so tests make what only a faulty writer would."""

    def __init__(self, alter: Callable[[str, bytes], bytes] = lambda what, data: data, recovery: rsa.RSAPrivateKey | None = None) -> None:
        self.objects: dict[str, bytes] = {}
        self.alter = alter
        self.repository, self.local_key = os.urandom(16), os.urandom(32)
        self.recovery = recovery or rsa.generate_private_key(65537, 3072)
        self.roots, self.lineage, self.agents = [Signer()], list[bytes](), dict[bytes, bytes]()
        self.trust, self.previous = -1, bytes(32)
        head = b"FKRP\0\1" + self.repository + u(NOW, 8) + self.roots[0].public.encoded
        self.put("repository", self.roots[0].signed("failkit/v1/repository", self.alter("repository", head)))

    def put(self, name: str, data: bytes) -> None:
        assert name not in self.objects, name
        self.objects[name] = data

    def certify(self, agent: Signer) -> None:
        self.agents[agent.public.key_id] = agent.public.encoded + b"\1"

    def revoke(self, agent: Signer, cut_offs: dict[bytes, tuple[int, bytes]]) -> None:
        cuts = [machine + varint(seq) + digest for machine, (seq, digest) in sorted(cut_offs.items())]
        self.agents[agent.public.key_id] = agent.public.encoded + b"\2" + listed(cuts)

    def replace_root(self) -> None:
        old, new = self.roots[-1], Signer()
        replaced = old.sign("failkit/v1/root-replacement", self.alter("replacement", self.repository + new.public.encoded))
        self.lineage.append(old.public.encoded + replaced)
        self.roots.append(new)

    def publish_trust(self) -> None:
        self.trust += 1
        agents = [self.agents[key_id] for key_id in sorted(self.agents)]
        spki = self.recovery.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        head = (b"FKTS\0\1" + self.repository + u(self.trust, 8) + self.previous + u(NOW, 8) + self.roots[-1].public.encoded
                + listed(self.lineage) + bytes_(spki) + listed(agents) + varint(30))
        statement = self.roots[-1].signed("failkit/v1/trust", self.alter("trust", head))
        self.put(f"trust/{inv(self.trust)}", statement)
        self.previous = sha256(statement)


class MachineWriter:
    def __init__(self, into: RepositoryWriter, agent: Signer) -> None:
        self.into, self.agent, self.repository, self.machine = into, agent, into.repository, os.urandom(16)
        self.alter = into.alter
        self.prefix = f"machines/{self.machine.hex()}/"
        self.machine_keys = os.urandom(64)
        self.data_keys: dict[int, DataKey] = {}
        self.key_records: dict[int, bytes] = {}  # of the epochs that the chain names
        self.owner = agent.public.key_id
        self.seq = self.tenure = self.number = self.epoch = self.watermark = 0
        self.previous, self.adopted, self.lock_state, self.published = bytes(32), dict[int, int](), (0, 0), False
        self.points: dict[int, tuple[int, bytes]] = {}
        self.digests: dict[int, bytes] = {}  # of all entries
        self.rows: dict[Address, SegmentRow] = {}
        self.fresh: dict[Address, tuple[Segment, bytes]] = {}  # sealed, not yet published
        self.used: dict[Address, int] = {}  # units that the newest point uses
        self.attachments: list[tuple[str, bytes, list[tuple[int, Place]]]] = []

    # keys

    def new_epoch(self) -> None:
        self.epoch += 1
        self.data_keys[self.epoch] = DataKey(os.urandom(32), self.repository, self.machine, self.epoch)
        self.key_records[self.epoch] = self.write_key_record(0)

    def write_key_record(self, revision: int, **changes: bytes) -> bytes:
        key, ids = self.data_keys[self.epoch], self.repository + self.machine + u(self.epoch, 4)
        context, nonce, file_nonce = b"failkit/v1/key-context\0" + ids, os.urandom(12), os.urandom(12)
        sealed = nonce + AESGCM(key.derive("failkit/v1/machine-keys", u(revision, 4), 32)).encrypt(nonce, self.machine_keys, ids + u(revision, 4))
        oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), context)
        wraps = [text("aws-kms") + text("arn:aws:kms:eu-central-1:1:key/1") + bytes_(b"opaque"),
                 text("local-key") + text("file") + bytes_(b"\1" + file_nonce + AESGCM(self.into.local_key).encrypt(file_nonce, key.key, context)),
                 text("recovery-key") + text("kit") + bytes_(self.into.recovery.public_key().encrypt(changes.get("key", key.key), oaep))]
        head = (b"FKKR\0\1\0\1" + ids + u(revision, 4) + u(NOW, 8) + changes.get("commitment", key.derive("failkit/v1/data-key-commitment", b"", 32))
                + sealed + listed(wraps))
        mac = hmac_sha256(changes.get("mac_key", key.derive("failkit/v1/key-record-mac", b"", 32)), head)
        record = self.agent.signed("failkit/v1/key-record", self.alter("key record", head + mac + self.agent.public.key_id))
        self.into.put(f"{self.prefix}keys/{dec(self.epoch, 8)}/{dec(revision, 4)}", record)
        return sha256(record)

    # segments

    def segment(self) -> Segment:
        self.number += 1
        return Segment(self, self.number)

    def close(self, segment: Segment) -> None:
        data = segment.close()
        self.into.put(f"{self.prefix}segments/{dec(segment.tenure, 16)}/{dec(segment.number, 10)}", data)
        self.fresh[segment.tenure, segment.number] = segment, data

    def write(self, segment: Segment, disk: DiskModel, first: int, blocks: list[bytes], codec: int = 1) -> None:
        padded = [b.ljust(disk.block_size, b"\0") for b in blocks]
        digests = [hmac_sha256(self.machine_keys[:32], b)[:16] for b in padded]
        place = segment.add(1, codec, disk.disk, first, len(blocks), disk.block_size, b"".join(padded), digests)
        for at, block in enumerate(blocks):
            disk.content[first + at] = block
            disk.blocks[first + at] = BlockPlace(place, codec, at, len(blocks), digests[at])

    def write_map(self, segment: Segment, disk: DiskModel, changed: set[int]) -> None:
        """Writes the pages above the changed blocks anew, leaves first."""
        for level in range(disk.level + 1):
            for index in sorted({block // 64 ** (level + 1) for block in changed}):
                disk.pages.pop((level, index), None)
                page = leaf(disk, index) if level == 0 else inner(disk, level, index)
                if page:
                    covers = 64 ** (level + 1)
                    page = self.alter("leaf" if level == 0 else "inner", page)
                    disk.pages[level, index] = segment.add(2, 0, disk.disk, index * covers, covers, disk.block_size, page, [])

    def attach(self, segment: Segment, name: str, data: bytes) -> None:
        chunks = [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]
        places = []
        for index, chunk in enumerate(chunks):
            codec = 1 if len(zstandard.compress(chunk)) < len(chunk) else 0
            places.append((codec, segment.add(3, codec, bytes(16), index, len(chunks), CHUNK, chunk, [])))
        self.attachments.append((name, data, places))

    # chain

    def begin(self, adopts: bool = False) -> None:
        """Opens a tenure; may adopt the one before, and what that one adopted."""
        self.adopted = {**self.adopted, self.tenure: self.watermark} if adopts else {}
        old, self.tenure, self.number, self.watermark, self.published = self.tenure, self.seq + 1, 0, 0, False
        self.owner = self.agent.public.key_id
        body = (b"\1" + varint(old) if adopts else b"\0") + varint(self.epoch) + self.key_records[self.epoch]
        self.entry(1, body)

    def rekey(self) -> None:
        self.new_epoch()
        self.rekey_to(self.epoch)

    def rekey_to(self, epoch: int) -> None:
        self.epoch = epoch
        self.entry(5, varint(self.epoch) + self.key_records[self.epoch])

    def lock(self) -> None:
        self.lock_state = (self.lock_state[0] + 1, NOW + self.seq)
        self.entry(4, varint(self.lock_state[0]) + varint(self.lock_state[1]))

    def prune(self, *seqs: int) -> None:
        for seq in seqs:
            del self.points[seq]
        self.entry(3, listed([varint(seq) for seq in seqs]))

    def publish(self, disks: list[DiskModel], excluded: list[tuple[str, str]] | None = None) -> int:
        used: dict[Address, int] = {}
        places = [b.place for d in disks for b in d.blocks.values()] + [p for d in disks for p in d.pages.values()]
        for place in places + [p for _, _, chunks in self.attachments for _, p in chunks]:
            used[place.tenure, place.number] = used.get((place.tenure, place.number), 0) + 1
        births = {at: SegmentRow(len(data), s.units, 0, self.seq + 1, 0, sha256(data))
                  for at, (s, data) in self.fresh.items() if used.get(at)}
        deaths = {at: was - used.get(at, 0) for at, was in self.used.items()}
        deaths.update({at: row.units - used[at] for at, row in births.items()})
        control = listed([varint(t) + varint(n) + varint(r.size) + varint(r.units) + r.digest for (t, n), r in sorted(births.items())])
        control += listed([varint(t) + varint(n) + varint(dead) for (t, n), dead in sorted(deaths.items()) if dead])
        self.rows.update(births)
        for at, dead in deaths.items():
            row = self.rows[at]
            row.dead += dead
            row.death = row.death or (self.seq + 1 if row.dead == row.units else 0)
        self.used, self.fresh, self.adopted, self.watermark, self.published = used, {}, {}, self.number, True
        sealed = self.seal_manifest(self.alter("manifest", self.manifest(disks, excluded or [])))
        self.points[self.seq + 1] = (NOW + self.seq + 1, bytes(32))
        self.entry(2, varint(self.epoch) + varint(self.watermark) + varint(0) + bytes_(sealed), control)
        return self.seq

    def manifest(self, disks: list[DiskModel], excluded: list[tuple[str, str]]) -> bytes:
        rows = []
        for d in disks:
            root = d.pages.get((d.level, 0))
            rows.append(d.disk + text(d.label) + varint(1) + varint(d.block_size) + varint(d.capacity) + text("") + text("")
                        + b"\1" + bytes_(b"reference") + (b"\1" + root.ref + root.digest if root else b"\0"))
        files = [text(name) + varint(len(data)) + sha256(data) + b"".join(bytes([codec]) + p.ref for codec, p in chunks)
                 for name, data, chunks in self.attachments]
        return (b"\1" + text("machine ä") + text("image") + varint(NOW) + b"\1" + varint(1) + varint(2) + varint(3)
                + listed(rows) + listed([text(label) + text(reason) for label, reason in excluded]) + listed(files))

    def seal_manifest(self, plain: bytes) -> bytes:
        salt = os.urandom(32)
        header = self.repository + self.machine + u(self.seq + 1, 8) + u(self.tenure, 8) + u(self.epoch, 4) + salt
        key, nonce, commitment = self.data_keys[self.epoch].derive_committed("failkit/v1/manifest", header)
        return salt + self.alter("manifest commitment", commitment) + AESGCM(key).encrypt(nonce, plain, header)

    def summary(self) -> bytes:
        live = {at: r for at, r in sorted(self.rows.items()) if not r.death or any(r.birth <= seq < r.death for seq in self.points)}
        return (varint(self.tenure) + self.owner + bytes([self.published]) + varint(self.watermark)
                + listed([varint(epoch) + digest for epoch, digest in sorted(self.key_records.items())])
                + listed([varint(t) + varint(watermark) for t, watermark in sorted(self.adopted.items())])
                + varint(self.lock_state[0]) + varint(self.lock_state[1])
                + listed([varint(seq) + varint(time) + digest for seq, (time, digest) in sorted(self.points.items())])
                + listed([b"".join(varint(n) for n in (*at, r.size, r.units, r.dead, r.birth, r.death)) + r.digest for at, r in live.items()]))

    def entry(self, kind: int, body: bytes, control: bytes = b"", signer: Signer | None = None) -> None:
        self.seq += 1
        signer = signer or self.agent
        if self.seq % 64 == 0:
            control += self.alter("summary", self.summary())
        control = self.alter("control", control)
        if len(control) > 65_536:
            data = b"FKCO\0\1" + self.repository + self.machine + u(self.seq, 8) + control
            self.into.put(f"{self.prefix}control/{dec(self.seq, 16)}-{sha256(data).hex()[:32]}", data)
            field_ = b"\1" + varint(len(data)) + sha256(data)
        else:
            field_ = b"\0" + bytes_(control)
        head = (b"FKCE\0\1" + u(kind, 1) + self.repository + self.machine + u(self.seq, 8) + self.previous + os.urandom(16)
                + u(NOW + self.seq, 8) + u(self.tenure, 8) + u(self.into.trust, 8) + bytes_(body) + field_ + signer.public.key_id)
        entry = signer.signed("failkit/v1/chain-entry", self.alter(f"entry {self.seq}", head))
        self.into.put(f"{self.prefix}chain/{inv(self.seq)}", entry)
        self.previous = self.digests[self.seq] = sha256(entry)
        if kind == 2:
            self.points[self.seq] = (NOW + self.seq, self.previous)


def table_of(places: list[Place]) -> tuple[bytes, list[Address]]:
    table = sorted({(p.tenure, p.number) for p in places})
    return listed([varint(t) + varint(n) for t, n in table]), table


def leaf(disk: DiskModel, index: int) -> bytes:
    runs: list[list[tuple[int, BlockPlace]]] = []
    for block in sorted(b for b in disk.blocks if b // 64 == index):
        at = disk.blocks[block]
        if runs and runs[-1][-1][0] == block - 1 and runs[-1][-1][1].place == at.place and runs[-1][-1][1].inside == at.inside - 1:
            runs[-1].append((block, at))
        else:
            runs.append([(block, at)])
    if not runs:
        return b""
    head, table = table_of([run[0][1].place for run in runs])
    rows, position = [], index * 64
    for run in runs:
        first, at = run[0]
        p = at.place
        numbers = [first - position, len(run), table.index((p.tenure, p.number)), p.record, p.offset, p.stored]
        rows.append(b"".join(varint(n) for n in numbers) + bytes([at.codec]) + varint(at.inside) + varint(at.record_blocks)
                    + b"".join(b.digest for _, b in run))
        position = first + len(run)
    return b"\1\0" + head + listed(rows)


def inner(disk: DiskModel, level: int, index: int) -> bytes:
    children = {i: p for i in range(64) if (p := disk.pages.get((level - 1, index * 64 + i)))}
    if not children:
        return b""
    head, table = table_of(list(children.values()))
    rows = [b"".join(varint(n) for n in (table.index((p.tenure, p.number)), p.record, p.offset, p.stored)) + p.digest
            for p in children.values()]
    return bytes([1, level]) + head + u(sum(1 << i for i in children), 8) + b"".join(rows)
