"""The reader restores what tiny_writer.py makes. Run with the python that install.sh prints."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import reader
from primitives import fingerprint, inv, sha256
from scenario import PEM, MemoryBucket, Scenario
from tiny_writer import bytes_


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

    def test_the_command_gives_checksums(self) -> None:
        result = self.run_reader("checksums", "--machine", self.scenario.machine.machine.hex())
        self.assertEqual(result.returncode, 0, result.stderr)
        points = json.loads(result.stdout)["points"]
        for seq, point in points.items():
            self.assertEqual(point["disks"], {label: sha256(d.image()).hex() for label, d in self.scenario.expected[int(seq)].items()})
            self.assertEqual(point["attachments"], {name: sha256(data).hex() for name, data in self.scenario.files.items()})

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

    def test_remarks_known_and_unknown(self) -> None:
        remarks = b"\2\1" + bytes_("changed 41 % of its disks".encode()) + b"\x7f" + bytes_(b"of a later release")
        scenario = Scenario(lambda what, data: b"\2" + data[1:] + remarks if what == "manifest" else data)
        scenario.read_all()
        points = reader.describe(scenario.open())["points"]
        self.assertEqual({point["flag"] for point in points}, {"changed 41 % of its disks"})
        plain = reader.describe(Scenario().open())["points"]
        self.assertEqual({point["flag"] for point in plain}, {None})

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


if __name__ == "__main__":
    unittest.main()
