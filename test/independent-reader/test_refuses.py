"""The reader refuses tampering by someone who can write to the bucket, but has no key."""

from __future__ import annotations

import contextlib
import io
import unittest

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

import reader
from primitives import FormatError, fingerprint, inv, sha256
from replica import Machine, open_repository
from scenario import RECOVERY, MemoryBucket, Scenario, dice
from tiny_writer import MachineWriter, RepositoryWriter, Signer


class Refuses(unittest.TestCase):
    """Tampering by someone who can write to the bucket, but has no key."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.scenario = Scenario()
        cls.objects = cls.scenario.repository.objects
        cls.segments = sorted(n for n in cls.objects if "/segments/" in n)

    def refuses(self, change: dict[str, bytes | None], pattern: str, scenario: Scenario | None = None) -> None:
        scenario = scenario or self.scenario
        merged = {**scenario.repository.objects, **change}
        with self.assertRaisesRegex(FormatError, pattern), contextlib.redirect_stderr(io.StringIO()):
            scenario.read_all({name: data for name, data in merged.items() if data is not None})

    def test_the_untouched_bucket_reads(self) -> None:
        self.scenario.read_all()

    def test_a_changed_bit_anywhere(self) -> None:
        for name, data in self.objects.items():
            if name.endswith("keys/00000002/0001"):
                continue  # does not count then: test_a_later_revision_that_does_not_count
            for at in {len(data) - 1, dice.randrange(len(data))}:
                with self.subTest(name=name, at=at):
                    self.refuses({name: data[:at] + bytes([data[at] ^ 1 << dice.randrange(8)]) + data[at + 1 :]}, ", offset ")

    def test_a_shortened_lengthened_or_missing_object(self) -> None:
        names = ["repository", *(n for n in self.objects if n.startswith("trust/")), self.scenario.entry_name(65),
                 self.scenario.entry_name(2), *self.segments, *(n for n in self.objects if n.endswith("/0000"))]
        for name in names:
            for changed in (self.objects[name][:-1], self.objects[name] + b"\0", b"", None):
                with self.subTest(name=name, length=None if changed is None else len(changed)):
                    self.refuses({name: changed}, ", offset ")

    def test_two_segments_exchanged(self) -> None:
        a, b = self.segments[:2]
        self.refuses({a: self.objects[b], b: self.objects[a]}, "tenure and number are not those in the name")

    def test_a_stranger_s_root(self) -> None:
        with self.assertRaisesRegex(FormatError, "neither the root key in force nor"):
            self.scenario.open(root=fingerprint(Signer().public))

    def test_a_descriptor_of_another_repository(self) -> None:
        other = RepositoryWriter(recovery=RECOVERY)
        self.refuses({"repository": other.objects["repository"]}, "repository id")

    def test_trust_statements_exchanged(self) -> None:
        names = sorted((n for n in self.objects if n.startswith("trust/")), reverse=True)
        self.refuses({names[0]: self.objects[names[1]], names[1]: self.objects[names[0]]}, "number is not the one in its name")

    def test_a_missing_trust_statement(self) -> None:
        for n in range(self.scenario.repository.trust):
            self.refuses({f"trust/{inv(n)}": None}, "No such object")

    def test_another_machine_under_this_name(self) -> None:
        m = MachineWriter(self.scenario.repository, self.scenario.second_agent)
        m.into = RepositoryWriter(recovery=RECOVERY)  # objects go elsewhere, ids stay
        m.into.trust = 0
        m.new_epoch()
        m.begin()
        renamed = {n.replace(m.machine.hex(), self.scenario.machine.machine.hex()): d for n, d in m.into.objects.items() if m.machine.hex() in n}
        chain = {n: None for n in self.objects if "/chain/" in n}
        self.refuses({**chain, **renamed}, "machine id")

    def test_a_rolled_back_trust(self) -> None:
        newest = min(n for n in self.objects if n.startswith("trust/"))
        self.refuses({newest: None}, "the bucket was rolled back")

    def test_a_chain_with_a_gap(self) -> None:
        self.refuses({self.scenario.entry_name(40): None}, "No such object")

    def test_an_entry_under_another_seq(self) -> None:
        self.refuses({self.scenario.entry_name(67): self.objects[self.scenario.entry_name(66)]}, "seq is not the one in its name")

    def test_an_old_entry_replaced_by_another_signed_one(self) -> None:
        fork_machine = MachineWriter(self.scenario.repository, self.scenario.second_agent)
        fork_machine.machine = self.scenario.machine.machine
        fork_machine.prefix, fork_machine.seq, fork_machine.tenure = f"machines/{fork_machine.machine.hex()}/", 39, 7
        objects, fork_machine.into = self.objects, RepositoryWriter(recovery=RECOVERY)
        fork_machine.into.trust, fork_machine.repository = 1, self.scenario.repository.repository
        fork_machine.previous = sha256(objects[self.scenario.entry_name(39)])
        fork_machine.lock()
        name = self.scenario.entry_name(40)
        self.refuses({name: fork_machine.into.objects[name]}, "not the entry that entry 41 follows")

    def test_no_chain_and_no_trust(self) -> None:
        self.refuses({name: None for name in self.objects if "/chain/" in name}, "no entry")
        self.refuses({name: None for name in self.objects if name.startswith("trust/")}, "no trust statement")

    def test_two_records_of_a_segment_exchanged(self) -> None:
        """Two equally long records: neither opens at the other's place."""
        machine = self.scenario.open()
        for name in self.segments:
            tenure, number = (int(p) for p in name.split("/")[-2:])
            data = self.objects[name]
            records = machine.footer(tenure, number, data)
            pair = [r for r in records if sum(r.stored == other.stored for other in records) > 1][:2]
            if len(pair) == 2:
                a, b = (data[r.offset : r.offset + r.stored] for r in pair)
                changed = bytearray(data)
                changed[pair[0].offset :][: len(a)] = b
                changed[pair[0].offset : pair[0].offset + len(a)] = b
                changed[pair[1].offset : pair[1].offset + len(b)] = a
                self.refuses({name: bytes(changed[: len(data)])}, "does not open|not the segment whose")
                return
        self.fail("no segment with two records of one length")

    def test_the_wrong_recovery_key(self) -> None:
        small = rsa.generate_private_key(65537, 2048).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        with self.assertRaisesRegex(ValueError, "3072 bits"):
            reader.recovery_key(small)
        other = rsa.generate_private_key(65537, 3072).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        bucket = MemoryBucket(self.objects)
        machine = Machine(bucket, *open_repository(bucket, self.scenario.root), self.scenario.machine.machine, reader.recovery_key(other), True)
        with self.assertRaisesRegex(FormatError, "no wrap that this key opens"):
            machine.point(3)

    def test_a_key_record_that_the_chain_does_not_name(self) -> None:
        m, name = self.scenario.machine, self.scenario.name("keys/00000002/0000")
        into, m.into = m.into, RepositoryWriter(recovery=RECOVERY)
        m.write_key_record(0)
        changed, m.into = m.into.objects[name], into
        self.refuses({name: changed}, "not the key record that the chain names")


if __name__ == "__main__":
    unittest.main()
