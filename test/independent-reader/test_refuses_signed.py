"""The reader refuses what only a faulty or malicious writer makes: every signature and tag is right."""

from __future__ import annotations

import contextlib
import io
import unittest
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric import rsa

from primitives import FormatError, fingerprint, sha256
from replica import open_repository
from scenario import MemoryBucket, Scenario
from tiny_writer import NOW, RepositoryWriter, Signer, bytes_, u, varint


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
                self.alters(what, lambda data: b"\3" + data[1:], "unknown .* version")

    def test_remarks_that_are_not_canonical(self) -> None:
        flag = b"\1" + bytes_(b"odd")
        for remarks, pattern in ((b"\0", "without remarks"), (b"\1\1\0", "without a value"), (b"\2" + flag + flag, "out of order"),
                                 (b"\1\0" + bytes_(b"odd"), ""), (b"\1\1" + bytes_(b"\xff"), "UTF-8"), (b"", "")):
            with self.subTest(remarks):
                self.alters("manifest", lambda data, more=remarks: b"\2" + data[1:] + more, pattern)
        self.alters("manifest", lambda data: data + b"\1" + flag, "trailing bytes")

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

    def test_a_lock_of_an_older_generation(self) -> None:
        scenario = Scenario()
        scenario.machine.lock_state = (0, NOW)
        scenario.machine.lock()
        with self.assertRaisesRegex(FormatError, "goes back to lock generation 1"):
            scenario.open()

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
