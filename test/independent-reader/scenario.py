"""The buckets of the tests, made by tiny_writer.py."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import replace

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

import reader
from primitives import FormatError, fingerprint, inv
from replica import Machine, open_repository
from tiny_writer import DiskModel, EcdsaSigner, MachineWriter, RepositoryWriter, Segment, Signer

RECOVERY = rsa.generate_private_key(65537, 3072)
PEM = RECOVERY.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
UNWRAP = reader.recovery_key(PEM)
Alter = Callable[[str, bytes], bytes]
Objects = dict[str, bytes]
dice = random.Random(7)


class MemoryBucket:
    def __init__(self, objects: Objects) -> None:
        self.objects = objects

    def get(self, name: str) -> bytes:
        if name not in self.objects:
            raise FormatError(name, 0, "No such object")
        return self.objects[name]

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        data = self.get(name)[offset : offset + length]
        if len(data) != length:
            raise FormatError(name, offset, "too short")
        return data

    def list(self, prefix: str) -> list[str]:
        return sorted(name for name in self.objects if name.startswith(prefix))


class Scenario:
    """Two agents, one replaced root, three tenures, two epochs, a pruned point, a summary at entry 64."""

    def __init__(self, alter: Alter = lambda what, data: data, many_segments: bool = False) -> None:
        self.repository = RepositoryWriter(alter, RECOVERY)
        self.first_agent, self.second_agent = Signer(), EcdsaSigner(2)
        self.repository.certify(self.first_agent)
        self.repository.publish_trust()
        self.alpha = DiskModel(os.urandom(16), "alpha", 4096, 5000 * 4096 + 1000)
        self.beta = DiskModel(os.urandom(16), "beta", 65_536, 300_000)
        self.empty = DiskModel(os.urandom(16), "empty", 4096, 8192)
        self.expected: dict[int, dict[str, DiskModel]] = {}
        self.files = {"machine.xml": b"<domain/>" * 40, "nvram": dice.randbytes(600_001), "nothing": b""}
        m = self.machine = MachineWriter(self.repository, self.first_agent)
        m.new_epoch()
        m.begin()
        segment = m.segment()
        for name, data in self.files.items():
            m.attach(segment, name, data)
        self.change(segment, self.alpha, [(0, 3), (60, 4), (64, 2), (4100, 1), (5000, 1)])
        self.change(segment, self.beta, [(0, 4), (4, 1)])
        self.publish(segment)
        segment = m.segment()
        self.change(segment, self.alpha, [(1, 1), (70, 2)])
        self.publish(segment)
        m.lock()
        m.prune(2)
        self.take_over()
        self.rest(many_segments)

    def take_over(self) -> None:
        """The first agent dies in a tenure that never publishes; the second one adopts it. The root is replaced meanwhile."""
        m = self.machine
        m.begin()
        segment = m.segment()
        self.change(segment, self.alpha, [(2, 1), (4097, 2)])
        m.close(segment)
        self.repository.certify(self.second_agent)
        self.repository.replace_root()
        self.repository.publish_trust()
        m.agent = self.second_agent
        m.begin(adopts=True)
        segment = m.segment()
        self.change(segment, self.beta, [(2, 2)])
        m.write_map(segment, self.alpha, {2, 4097})
        self.publish(segment)
        self.repository.revoke(self.first_agent, {m.machine: (6, m.digests[6])})
        self.repository.publish_trust()

    def rest(self, many_segments: bool) -> None:
        m = self.machine
        m.rekey()
        m.write_key_record(1)
        segment = m.segment()
        for block in (64, 65, 4100):
            del self.alpha.content[block], self.alpha.blocks[block]
        m.write_map(segment, self.alpha, {64, 65, 4100})
        self.publish(segment)
        if many_segments:
            blocks = range(100, 1900)
            for block in blocks:
                segment = m.segment()
                m.write(segment, self.alpha, block, [dice.randbytes(4096)], codec=0)
                m.close(segment)
            segment = m.segment()
            m.write_map(segment, self.alpha, set(blocks))
            self.publish(segment)
        while m.seq < 64:
            m.lock()
        segment = m.segment()
        self.change(segment, self.alpha, [(0, 2)])
        self.publish(segment, [("scratch", "too large")])
        m.lock()

    def change(self, segment: Segment, disk: DiskModel, runs: list[tuple[int, int]]) -> None:
        changed = set()
        for first, count in runs:
            blocks = [dice.randbytes(disk.block_size // 2).ljust(disk.block_size, b"\1") for _ in range(count)]
            over = (first + count) * disk.block_size - disk.capacity
            if over > 0:
                blocks[-1] = blocks[-1][: disk.block_size - over]
            self.machine.write(segment, disk, first, blocks, codec=first % 2 ^ 1)
            changed.update(range(first, first + count))
        self.machine.write_map(segment, disk, changed)

    def publish(self, segment: Segment, excluded: list[tuple[str, str]] | None = None) -> None:
        self.machine.close(segment)
        disks = [self.alpha, self.beta, self.empty]
        seq = self.machine.publish(disks, excluded)
        self.expected[seq] = {d.label: replace(d, content=dict(d.content)) for d in disks}

    @property
    def root(self) -> str:
        return fingerprint(self.repository.roots[-1].public)

    def open(self, objects: Objects | None = None, whole_chain: bool = True, root: str | None = None) -> Machine:
        bucket = MemoryBucket(self.repository.objects if objects is None else objects)
        return Machine(bucket, *open_repository(bucket, root or self.root), self.machine.machine, UNWRAP, whole_chain)

    def read_all(self, objects: Objects | None = None) -> None:
        """Everything that can be read: list, rebuild and verify."""
        machine = self.open(objects)
        reader.describe(machine)
        reader.rebuild(machine)
        reader.verify(machine)

    def name(self, part: str) -> str:
        return f"machines/{self.machine.machine.hex()}/{part}"

    def entry_name(self, seq: int) -> str:
        return self.name(f"chain/{inv(seq)}")
