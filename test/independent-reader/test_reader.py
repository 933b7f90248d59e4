"""The reader restores what tiny_writer.py makes, and refuses tampering. Run with the python that install.sh prints."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import random
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

import reader
from primitives import FormatError, fingerprint, inv, sha256
from replica import Machine, open_repository
from tiny_writer import NOW, DiskModel, MachineWriter, RepositoryWriter, Segment, Signer, bytes_, u, varint

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
        self.first_agent, self.second_agent = Signer(), Signer()
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


class Reads(unittest.TestCase):
    scenario: Scenario
    folder: tempfile.TemporaryDirectory[str]

    @classmethod
    def setUpClass(cls) -> None:
        cls.scenario = Scenario(many_segments=True)
        cls.folder = tempfile.TemporaryDirectory()
        root = Path(cls.folder.name)
        for name, data in cls.scenario.repository.objects.items():
            path = root / "bucket" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        (root / "key.pem").write_bytes(PEM)

    @classmethod
    def tearDownClass(cls) -> None:
        cls.folder.cleanup()

    def run_reader(self, command: str, *more: str, key: tuple[str, str] = ("--recovery-key", "key.pem")) -> subprocess.CompletedProcess[str]:
        arguments = [sys.executable, str(Path(__file__).with_name("reader.py")), command, "bucket", *key, "--root", self.scenario.root]
        return subprocess.run([*arguments, *more], cwd=self.folder.name, capture_output=True, text=True, check=False)

    def test_lists_the_retained_points(self) -> None:
        for more in ([], ["--whole-chain"]):
            result = self.run_reader("list", *more)
            self.assertEqual(result.returncode, 0, result.stderr)
            machine = json.loads(result.stdout)["machines"][0]
            self.assertEqual([p["point"] for p in machine["points"]], [seq for seq in self.scenario.expected if seq != 2])
            self.assertEqual([p["partial"] for p in machine["points"]], [False] * (len(machine["points"]) - 1) + [True])
            self.assertEqual([d["label"] for d in machine["points"][0]["disks"]], ["alpha", "beta", "empty"])

    def test_restores_every_disk_of_every_point(self) -> None:
        machine = self.scenario.open(whole_chain=False)
        for seq in machine.state.points:
            for label, disk in self.scenario.expected[seq].items():
                out = Path(self.folder.name) / "disk.img"
                reader.restore(machine, seq, label, out)
                self.assertTrue(out.read_bytes() == disk.image(), f"point {seq}, disk {label}")

    def test_the_command_restores_a_disk_and_attachments(self) -> None:
        common = ["--machine", self.scenario.machine.machine.hex(), "--point", "3"]
        result = self.run_reader("restore", *common, "--disk", "beta", "--out", "beta.img")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual((Path(self.folder.name) / "beta.img").read_bytes(), self.scenario.expected[3]["beta"].image())
        result = self.run_reader("attachments", *common, "--out", "files")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual({p.name: p.read_bytes() for p in (Path(self.folder.name) / "files").iterdir()}, self.scenario.files)

    def test_the_command_fails_in_one_line(self) -> None:
        common = ["--machine", self.scenario.machine.machine.hex(), "--disk", "alpha", "--out", "no.img"]
        result = self.run_reader("restore", "--point", "2", *common)
        self.assertEqual((result.returncode, result.stdout, result.stderr.count("\n")), (1, "", 1))
        self.assertRegex(result.stderr, r"chain/\d{16}, offset 0: 2 is no recovery point, or was pruned")
        self.assertFalse((Path(self.folder.name) / "no.img").exists())

    def test_rebuild_finds_every_block_that_is_in_force(self) -> None:
        found = reader.rebuild(self.scenario.open())
        disks: dict[str, list[dict[str, object]]] = found["disks"]  # type: ignore[assignment]
        for disk in (self.scenario.alpha, self.scenario.beta):
            listed = {(b["block"], b["tenure"], b["number"], b["record"], b["digest"]) for b in disks[disk.disk.hex()]}
            for block, at in disk.blocks.items():
                self.assertIn((block, at.place.tenure, at.place.number, at.place.record, at.digest.hex()), listed)

    def test_large_control_data_lies_outside_the_entry(self) -> None:
        controls = [n for n in self.scenario.repository.objects if "/control/" in n]
        self.assertEqual(len(controls), 2, "one for births, one for the summary")

    def test_any_root_of_the_lineage_vouches(self) -> None:
        first, in_force = (fingerprint(key.public) for key in self.scenario.repository.roots)
        with contextlib.redirect_stderr(io.StringIO()) as warning:
            self.scenario.open(root=in_force)
            self.assertEqual(warning.getvalue(), "")
            self.scenario.open(root=first)
        self.assertIn(f"{first} was replaced; in force is {in_force}", warning.getvalue())

    def test_a_local_key_opens_too(self) -> None:
        path = Path(self.folder.name) / "local.key"
        key = base64.b64encode(self.scenario.repository.local_key).decode()
        path.write_text(f"# A comment.\nfailkit-local-key 1\nkey-id local:0123456789abcdef\nkey {key}\n")
        result = self.run_reader("list", key=("--local-key", "local.key"))
        self.assertEqual(result.returncode, 0, result.stderr)


class ReadsToo(unittest.TestCase):
    """What looks odd and is right all the same."""

    def test_objects_of_others_are_ignored(self) -> None:
        scenario = Scenario()
        m = scenario.machine
        strange = ["trust/latest", f"trust/{inv(1)}.bak", "trust/9999999999999999", m.prefix + "chain/0", f"{m.prefix}chain/{inv(99)}/x", "probe/1",
                   m.prefix + "keys/00000002/readme", m.prefix + "segments/readme", m.prefix + "pins/1", "machines/readme"]
        objects = {**scenario.repository.objects, **{name: b"?" for name in strange}}
        scenario.read_all(objects)
        self.assertEqual(reader.machines(MemoryBucket(objects)), [m.machine])

    def test_a_later_revision_that_does_not_count(self) -> None:
        for what, change in (("malformed", lambda m: m.into.put(m.prefix + "keys/00000002/0002", b"FKKR")),
                             ("another key", lambda m: m.write_key_record(2, commitment=bytes(32)))):
            scenario = Scenario()
            change(scenario.machine)
            with self.subTest(what), contextlib.redirect_stderr(io.StringIO()) as warning:
                scenario.read_all()
            self.assertIn("does not count", warning.getvalue())

    def test_a_later_revision_by_a_revoked_agent(self) -> None:
        scenario = Scenario()
        scenario.machine.agent = scenario.first_agent
        scenario.machine.write_key_record(2, key=bytes(32))
        with contextlib.redirect_stderr(io.StringIO()) as warning:
            scenario.read_all()
        self.assertIn("does not count", warning.getvalue())

    def test_a_later_revision_that_was_damaged(self) -> None:
        scenario = Scenario()
        name = scenario.name("keys/00000002/0001")
        record = scenario.repository.objects[name]
        for changed in (record[:-1], record[:100] + bytes([record[100] ^ 1]) + record[101:], None):
            objects = {n: d for n, d in {**scenario.repository.objects, name: changed}.items() if d is not None}
            with contextlib.redirect_stderr(io.StringIO()):
                scenario.read_all(objects)

    def test_an_epoch_with_machine_keys_of_its_own(self) -> None:
        """An agent that may not unwrap started anew: old segments keep the old digest key."""
        scenario = Scenario()
        m = scenario.machine
        m.machine_keys = os.urandom(64)
        m.rekey()
        segment = m.segment()
        scenario.change(segment, scenario.alpha, [(4, 2)])
        scenario.publish(segment)
        scenario.read_all()

    def test_a_disk_that_shrank_into_a_record(self) -> None:
        scenario = Scenario()
        m, beta = scenario.machine, scenario.beta
        segment = m.segment()
        for block in (2, 3, 4):
            beta.content.pop(block, None)
            beta.blocks.pop(block, None)
        scenario.change(segment, scenario.alpha, [(64, 4)])
        scenario.alpha.blocks = {b: at for b, at in scenario.alpha.blocks.items() if b < 66}
        scenario.alpha.content = {b: data for b, data in scenario.alpha.content.items() if b < 66}
        scenario.alpha.capacity, scenario.alpha.pages = 66 * 4096, {}
        m.write_map(segment, scenario.alpha, set(scenario.alpha.blocks))
        scenario.publish(segment)
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "disk.img"
            reader.restore(scenario.open(), m.seq, "alpha", out)
            self.assertEqual(out.read_bytes(), scenario.alpha.image())


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


class RefusesSigned(unittest.TestCase):
    """What only a faulty or malicious writer makes: every signature and tag is right."""

    def alters(self, what: str, change: Callable[[bytes], bytes], pattern: str) -> None:
        """Alters every encoding of a kind, before it is sealed or signed."""
        scenario = Scenario(lambda kind, data: change(data) if kind == what else data)
        with self.assertRaisesRegex(FormatError, pattern), contextlib.redirect_stderr(io.StringIO()):
            scenario.read_all()

    def replaces(self, what: str, old: bytes, new: bytes, pattern: str) -> None:
        def change(data: bytes) -> bytes:
            self.assertIn(old, data)
            return data.replace(old, new, 1)

        self.alters(what, change, pattern)

    def test_versions_and_magics(self) -> None:
        for what, magic in (("repository", b"FKRP"), ("trust", b"FKTS"), ("key record", b"FKKR"), ("entry 9", b"FKCE")):
            with self.subTest(what):
                self.alters(what, lambda data, magic=magic: magic + b"\0\2" + data[6:], "magic")
        for what in ("manifest", "leaf", "inner", "footer"):
            with self.subTest(what):
                self.alters(what, lambda data: b"\2" + data[1:], "unknown .* version")

    def test_trailing_bytes(self) -> None:
        for what in ("manifest", "leaf", "inner", "footer", "control", "key record", "trust", "repository"):
            with self.subTest(what):
                self.alters(what, lambda data: data + b"\0", "trailing bytes|unknown signature algorithm 0")

    def test_an_unknown_entry_type(self) -> None:
        self.alters("entry 4", lambda d: d[:6] + b"\6" + d[7:], "unknown entry type 6")

    def test_an_integer_above_2_53(self) -> None:
        self.alters("entry 4", lambda d: d[:95] + b"\xff" * 8 + d[103:], "2\\^53")

    def test_a_varint_that_is_not_shortest(self) -> None:
        self.alters("manifest", lambda d: d[:1] + bytes([d[1] | 0x80, 0]) + d[2:], "shortest")

    def test_text_that_is_not_utf8(self) -> None:
        self.replaces("manifest", "ä".encode(), b"\xff\xff", "UTF-8")

    def test_an_unknown_consistency(self) -> None:
        before = bytes_(b"image") + varint(NOW)
        self.replaces("manifest", before + b"\1", before + b"\4", "unknown consistency 4")

    def test_two_disks_of_one_label(self) -> None:
        self.replaces("manifest", bytes_(b"alpha"), bytes_(b"beta"), "a disk is repeated")
        self.alters("manifest", lambda d: d.replace(bytes_(b"scratch"), bytes_(b"beta"), 1), "a disk is repeated")

    def test_two_attachments_of_one_name(self) -> None:
        self.replaces("manifest", bytes_(b"nothing"), bytes_(b"nvram"), "an attachment is repeated")

    def test_an_attachment_name_that_leaves_the_folder(self) -> None:
        for name in ("../x", "/etc/x", "..", ".", "", "a\\b", "x" * 101, "nvram\n", "ä"):
            with self.subTest(name):
                self.replaces("manifest", bytes_(b"nothing"), bytes_(name.encode()), "is no name for an attachment")

    def test_a_wrong_attachment_digest(self) -> None:
        data = b"<domain/>" * 40
        self.replaces("manifest", sha256(data), bytes(32), "SHA-256 of attachment")

    def test_a_wrong_page_digest(self) -> None:
        self.alters("manifest", flip_root_digest, "the page's digest is wrong")

    def test_a_wrong_block_digest(self) -> None:
        self.alters("leaf", lambda d: d[:-1] + bytes([d[-1] ^ 1]), "the digest of block")

    def test_a_wrong_digest_in_the_footer(self) -> None:
        self.alters("footer entry", lambda d: d[:-1] + bytes([d[-1] ^ 1]) if d[0] == 1 else d, "the footer's digest of block")

    def test_a_footer_that_gives_another_length(self) -> None:
        self.alters("footer entry", lambda d: d[:-1] + bytes([d[-1] ^ 1]) if d[0] == 3 else d, "cannot take|is outside")

    def test_an_unknown_record_type(self) -> None:
        self.alters("footer entry", lambda d: b"\5" + d[1:], "unknown record type 5")

    def test_a_manifest_commitment(self) -> None:
        self.alters("manifest commitment", lambda d: bytes(32), "manifest's commitment")

    def test_a_page_of_another_level(self) -> None:
        self.alters("leaf", lambda d: b"\1\1" + d[2:], "not a page of level 0")

    def test_a_page_without_children_or_with_too_many(self) -> None:
        def children(bitmap: int) -> Callable[[bytes], bytes]:
            return lambda d: d if d[1] != 2 else d[: (at := table_end(d))] + u(bitmap, 8) + d[at + 8 :]

        self.alters("inner", children(0), "without children")
        self.alters("inner", children(1 << 63 | 1), "behind the end of the disk")

    def test_an_unused_segment_in_a_page(self) -> None:
        self.alters("leaf", lambda d: d[:2] + bytes([d[2] + 1]) + d[3 : table_end(d)] + varint(99) + varint(1) + d[table_end(d) :], "not used")

    def test_a_summary_that_forgets_or_invents(self) -> None:
        self.alters("summary", lambda d: d[:17] + b"\0" + d[18:], "the summary's published")
        self.alters("summary", lambda d: d[:1] + bytes(16) + d[17:], "the summary's owner")
        self.alters("summary", lambda d: d[:-1] + bytes([d[-1] ^ 1]), "the summary's segments")

    def test_a_wrong_commitment_or_mac_in_a_key_record(self) -> None:
        for changes, pattern in (({"mac_key": bytes(32)}, "mac is wrong"), ({"key": bytes(32)}, "commitment is wrong")):
            scenario = Scenario()
            scenario.machine.write_key_record(2, **changes)
            with self.subTest(pattern), self.assertRaisesRegex(FormatError, pattern):
                scenario.read_all()

    def test_a_replacement_that_the_old_root_did_not_sign(self) -> None:
        self.alters("replacement", lambda d: d[:-1] + bytes([d[-1] ^ 1]), "root-replacement.* is wrong")

    def test_a_stranger_s_entry(self) -> None:
        scenario = Scenario()
        scenario.machine.agent = Signer()
        scenario.machine.lock()
        with self.assertRaisesRegex(FormatError, "does not list"):
            scenario.open()

    def test_a_revoked_agent_s_entries_after_its_cut_off_have_no_effect(self) -> None:
        scenario = Scenario()
        before = scenario.open().state
        m, into = scenario.machine, scenario.machine.into
        owner = m.tenure, m.agent
        m.agent = scenario.first_agent
        m.prune(3)
        m.begin()
        into.trust += 7  # says nothing either
        m.publish([scenario.alpha])
        into.trust -= 7
        m.tenure, m.agent = owner
        m.lock()
        for whole_chain in (False, True):
            with contextlib.redirect_stderr(io.StringIO()) as warning:
                after = scenario.open(whole_chain=whole_chain).state
            self.assertEqual((after.points, after.tenure, after.owner, after.segments), (before.points, before.tenure, before.owner, before.segments))
            self.assertEqual(warning.getvalue().count("revoked agent"), 3)

    def test_a_void_entry_where_a_summary_is_due(self) -> None:
        scenario = Scenario()
        m = scenario.machine
        owner = m.agent
        while m.seq < 127:
            m.lock()
        points = scenario.open().state.points
        m.agent = scenario.first_agent
        m.alter = lambda what, data: b"never read" if what == "summary" else data
        m.lock()
        m.agent = owner
        m.lock_state = m.lock_state[0] - 1, m.lock_state[1] - 1  # the void one did not count
        m.lock()
        for whole_chain in (False, True):
            with contextlib.redirect_stderr(io.StringIO()):
                self.assertEqual(scenario.open(whole_chain=whole_chain).state.points, points)

    def test_an_entry_at_a_cut_off_that_was_replaced(self) -> None:
        scenario = Scenario()
        scenario.repository.revoke(scenario.first_agent, {scenario.machine.machine: (6, bytes(32))})
        scenario.repository.publish_trust()
        with self.assertRaisesRegex(FormatError, "not the entry at which the root key revoked"):
            scenario.open()

    def test_publishing_in_another_agent_s_tenure(self) -> None:
        scenario = Scenario()
        m, third = scenario.machine, Signer()
        scenario.repository.certify(third)
        scenario.repository.publish_trust()
        m.agent = third
        m.lock()  # any certified agent may
        scenario.open()
        m.publish([scenario.alpha])
        with self.assertRaisesRegex(FormatError, "began the tenure"):
            scenario.open()

    def test_a_rekey_in_another_agent_s_tenure(self) -> None:
        scenario = Scenario()
        scenario.repository.certify(Signer())
        scenario.repository.certify(third := Signer())
        scenario.repository.publish_trust()
        scenario.machine.agent = third
        scenario.machine.rekey()
        with self.assertRaisesRegex(FormatError, "began the tenure"):
            scenario.open()

    def test_a_replaced_root_that_writes_itself_back_in(self) -> None:
        """It signs a statement whose lineage ends with itself, as before it was replaced."""
        scenario = Scenario()
        scenario.repository.roots.pop()
        scenario.repository.lineage.pop()
        scenario.repository.publish_trust()
        with self.assertRaisesRegex(FormatError, "the lineage is not the one before it"):
            scenario.open()

    def test_a_lineage_two_steps_longer(self) -> None:
        scenario = Scenario()
        for _ in range(2):
            scenario.repository.replace_root()
        scenario.repository.publish_trust()
        with self.assertRaisesRegex(FormatError, "with one step more"):
            scenario.open()

    def test_trust_that_does_not_follow(self) -> None:
        self.alters("trust", lambda d: d[:30] + bytes([d[30] ^ 1]) + d[31:], "does not follow the statement before it")

    def test_a_weak_recovery_key(self) -> None:
        weak = RepositoryWriter(recovery=rsa.generate_private_key(65537, 2048))
        weak.publish_trust()
        with self.assertRaisesRegex(FormatError, "3072 bits"):
            open_repository(MemoryBucket(weak.objects), fingerprint(weak.roots[0].public))

    def test_pruning_the_newest_point(self) -> None:
        scenario = Scenario()
        scenario.machine.prune(max(scenario.machine.points))
        with self.assertRaisesRegex(FormatError, "prunes the newest"):
            scenario.open()

    def test_another_key_record_for_an_epoch(self) -> None:
        scenario = Scenario()
        scenario.machine.key_records[2] = bytes(32)
        scenario.machine.begin()
        with self.assertRaisesRegex(FormatError, "another key record for epoch 2"):
            scenario.open()
        with self.assertRaisesRegex(FormatError, "the epoch falls"):
            scenario = Scenario()
            scenario.machine.epoch = 1
            scenario.machine.begin()
            scenario.open()

    def test_a_segment_of_an_epoch_above_its_point_s(self) -> None:
        """A segment of the new epoch under a publish in the old one."""
        scenario = Scenario()
        m = scenario.machine
        m.new_epoch()
        segment = m.segment()
        scenario.change(segment, scenario.alpha, [(0, 1)])
        m.close(segment)
        m.epoch -= 1
        m.publish([scenario.alpha, scenario.beta, scenario.empty])
        m.rekey_to(3)
        with self.assertRaisesRegex(FormatError, "of epoch 3, above that of point"):
            scenario.read_all()

    def test_an_entry_that_knows_a_newer_trust_statement(self) -> None:
        scenario = Scenario()
        scenario.repository.trust += 1
        scenario.machine.lock()
        with self.assertRaisesRegex(FormatError, "rolled back"):
            scenario.open()

    def test_adopting_another_tenure_than_the_last(self) -> None:
        scenario = Scenario()
        scenario.machine.tenure = 6
        scenario.machine.begin(adopts=True)
        with self.assertRaisesRegex(FormatError, "adopts tenure 6, tenure 7 was in force"):
            scenario.open()

    def test_pruning_what_is_not_there(self) -> None:
        scenario = Scenario()
        scenario.machine.points[2] = (0, b"")
        scenario.machine.prune(2)
        with self.assertRaisesRegex(FormatError, "no retained point"):
            scenario.open()

    def test_a_segment_of_another_tenure_cannot_be_born(self) -> None:
        self.alters("control", lambda d: d[:1] + varint(99) + d[2:] if d[:2] == b"\1\1" else d, "cannot be born here")

    def test_deaths_that_the_maps_do_not_show(self) -> None:
        scenario = Scenario()
        m = scenario.machine
        at = max(m.used)
        m.used[at] -= 1  # the next publish counts one death too few
        segment = m.segment()
        scenario.change(segment, scenario.alpha, [(0, 2)])
        m.close(segment)
        m.publish([scenario.alpha, scenario.beta, scenario.empty])
        with self.assertRaisesRegex(FormatError, "units are in use"):
            scenario.read_all()

    def test_a_point_that_uses_what_may_be_deleted(self) -> None:
        scenario = Scenario()
        m = scenario.machine
        at = max(m.used)
        m.used[at] += m.rows[at].units - m.rows[at].dead  # so that the next publish counts all of it as dead
        segment = m.segment()
        scenario.change(segment, scenario.beta, [(0, 1)])
        m.close(segment)
        m.publish([scenario.alpha, scenario.beta, scenario.empty])
        with self.assertRaisesRegex(FormatError, "by the chain it may be deleted"):
            scenario.read_all()

    def test_more_deaths_than_units(self) -> None:
        self.alters("control", lambda d: d[:-1] + b"\x7f" if d[:2] == b"\1\7" and d[-1] < 0x80 else d, "more units die")


def table_end(page: bytes) -> int:
    """Where a page's segment table ends; all numbers in these buckets' tables take one byte."""
    return 3 + 2 * page[2]


def flip_root_digest(manifest: bytes) -> bytes:
    """Changes the byte before the disk `empty`'s id: the last of beta's root digest."""
    at = manifest.index(bytes_(b"empty")) - 17
    return manifest[:at] + bytes([manifest[at] ^ 1]) + manifest[at + 1 :]


if __name__ == "__main__":
    unittest.main()
