"""Restores disks from a bucket directory, written from docs/format.md alone, without any of the agent's code.

`install.sh` makes the environment and prints its python; `python reader.py --help` names the commands.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import re
import sys
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.exceptions import InvalidTag

import objects as o
import segment as sg
from primitives import Bucket, Cursor, DirectoryBucket, FormatError, hmac_sha256, sha256
from replica import Machine, Unwrap, open_repository


def recovery_key(pem: bytes) -> Unwrap:
    private = serialization.load_pem_private_key(pem, None)
    if not isinstance(private, RSAPrivateKey) or private.key_size < 3072:
        raise ValueError("the recovery key is not an RSA key of 3072 bits or more")

    def unwrap(wrap: o.Wrap, context: bytes) -> bytes | None:
        if wrap.provider != "recovery-key":
            return None
        try:
            key = private.decrypt(wrap.wrapped, padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), context))
        except ValueError:
            return None
        return key if len(key) == 32 else None

    return unwrap


def local_key(text: str) -> Unwrap:
    found = re.fullmatch(r"failkit-local-key 1\nkey-id (local:[0-9a-f]{16})\nkey ([A-Za-z0-9+/=]+)", meaningful(text))
    key = base64.b64decode(found[2], validate=True) if found else b""
    if len(key) != 32:
        raise ValueError("not a local key file of version 1")

    def unwrap(wrap: o.Wrap, context: bytes) -> bytes | None:
        if wrap.provider != "local-key" or len(wrap.wrapped) != 61 or wrap.wrapped[0] != 1:
            return None
        try:
            return AESGCM(key).decrypt(wrap.wrapped[1:13], wrap.wrapped[13:], context)
        except InvalidTag:
            return None

    return unwrap


def meaningful(text: str) -> str:
    """Without comments and empty lines."""
    return "\n".join(line for line in text.splitlines() if line.strip() and not line.startswith("#"))


def machines(bucket: Bucket) -> list[bytes]:
    names = {name.split("/")[1] for name in bucket.list("machines/")}
    return [bytes.fromhex(name) for name in sorted(names) if re.fullmatch(r"[0-9a-f]{32}", name)]


def describe(machine: Machine) -> dict[str, object]:
    points = []
    for seq in sorted(machine.state.points):
        entry, manifest = machine.point(seq)
        points.append({
            "point": seq, "time": entry.time, "snapshotTime": manifest.snapshot_time, "consistency": manifest.consistency,
            "machineName": manifest.machine_name, "sourceKind": manifest.source_kind, "partial": bool(manifest.excluded),
            "disks": [{"disk": d.disk.hex(), "label": d.label, "capacity": d.capacity, "blockSize": d.block_size} for d in manifest.disks],
            "excluded": [{"label": label, "reason": reason} for label, reason in manifest.excluded],
            "attachments": [{"name": a.name, "length": a.length} for a in manifest.attachments],
            "flag": manifest.flag,
        })
    return {"machine": machine.machine.hex(), "head": machine.head, "points": points}


def restore(machine: Machine, seq: int, label: str, out: Path) -> dict[str, object]:
    """Writes a disk whole or not at all: the file gets its name once every block was checked."""
    entry, manifest = machine.point(seq)
    disk = next((d for d in manifest.disks if d.label == label), None)
    if disk is None:
        raise FormatError(f"point {seq}", 0, f"has no disk {label!r}, but {[d.label for d in manifest.disks]}")
    part, blocks = out.with_name(out.name + ".part"), 0
    try:
        with part.open("wb") as file:
            file.truncate(disk.capacity)
            for block, data in machine.blocks(entry, disk):
                start = block * disk.block_size
                file.seek(start)
                file.write(data[: disk.capacity - start])
                blocks += 1
        os.replace(part, out)
    finally:
        part.unlink(missing_ok=True)
    return {"disk": label, "capacity": disk.capacity, "blocks": blocks}


def checksums(machine: Machine) -> dict[str, object]:
    """SHA-256 of every disk and every attachment of every retained point, without writing them anywhere."""
    points: dict[str, object] = {}
    for seq in sorted(machine.state.points):
        entry, manifest = machine.point(seq)
        disks = {disk.label: checksum(machine, entry, disk) for disk in manifest.disks}
        files = {name: sha256(data).hex() for name, data in attachments(machine, seq).items()}
        points[str(seq)] = {"disks": disks, "attachments": files}
    return {"machine": machine.machine.hex(), "points": points}


def checksum(machine: Machine, entry: o.Entry, disk: o.Disk) -> str:
    hashed, end, zeros = hashlib.sha256(), 0, bytes(2**20)
    for block, data in (*machine.blocks(entry, disk), (disk.blocks, b"")):
        start = min(block * disk.block_size, disk.capacity)
        for at in range(end, start, len(zeros)):
            hashed.update(zeros[: start - at])
        hashed.update(data[: disk.capacity - start])
        end = start + len(data)
    return hashed.hexdigest()


def attachments(machine: Machine, seq: int) -> dict[str, bytes]:
    files = {}
    for attachment in machine.point(seq)[1].attachments:
        chunks, count = [], len(attachment.chunks)
        for index, (codec, ref) in enumerate(attachment.chunks):
            length = min(sg.CHUNK, attachment.length - index * sg.CHUNK)
            chunks.append(machine.open_record(ref, sg.ATTACHMENT, codec, sg.NO_DISK, index, count, sg.CHUNK, length))
        files[attachment.name] = b"".join(chunks)
        if sha256(files[attachment.name]) != attachment.digest:
            raise FormatError(f"point {seq}", 0, f"the SHA-256 of attachment {attachment.name!r} is wrong")
    return files


def write_attachments(files: dict[str, bytes], out: Path) -> dict[str, int]:
    out.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (out / name).write_bytes(data)
    return {name: len(data) for name, data in files.items()}


def verify(machine: Machine) -> dict[str, object]:
    """Everything that can be read without writing it: every retained point, and the unit counts of the newest."""
    points = {seq: machine.point(seq) for seq in sorted(machine.state.points)}
    blocks = 0
    for seq, (entry, manifest) in points.items():
        attachments(machine, seq)
        blocks += sum(1 for disk in manifest.disks for _ in machine.blocks(entry, disk))
    if machine.state.newest_publish in points:
        machine.check_units(*points[machine.state.newest_publish])
    return {"machine": machine.machine.hex(), "points": list(points), "blocksRead": blocks}


def rebuild(machine: Machine) -> dict[str, object]:
    """Every block in every segment by the footers alone; opens each record to see that the footer speaks the truth."""
    segments: list[dict[str, object]] = []
    blocks: dict[str, list[dict[str, object]]] = {}
    prefix = f"{machine.prefix}segments/"
    for name in machine.bucket.list(prefix):
        found = re.fullmatch(r"([0-9]{16})/([0-9]{10})", name[len(prefix) :])
        if not found:
            continue
        tenure, number = int(found[1]), int(found[2])
        data = machine.bucket.get(name)
        born = machine.state.segments.get((tenure, number))
        records, epoch = machine.footer(tenure, number, data), machine.segment(tenure, number)[0].epoch
        units = sum(r.count if r.type == sg.DATA else 1 for r in records)
        if born and (born.size, born.units, born.digest) != (len(data), units, sha256(data)):
            raise FormatError(name, 0, "not the segment whose size, units and SHA-256 the chain gives")
        segments.append({"tenure": tenure, "number": number, "records": len(records), "units": units, "inChain": born is not None})
        for index, record in enumerate(records):
            ref = sg.Ref(tenure, number, index, record.offset, record.stored)
            for block, digest in check_record(machine, ref, record, machine.digest_key(epoch)):
                blocks.setdefault(record.disk.hex(), []).append(
                    {"block": block, "tenure": tenure, "number": number, "record": index, "digest": digest.hex()})
    return {"machine": machine.machine.hex(), "segments": segments, "disks": blocks}


def check_record(machine: Machine, ref: sg.Ref, record: sg.FooterRecord, digest_key: bytes) -> list[tuple[int, bytes]]:
    """The blocks of a data record, and their digests."""
    name = sg.segment_name(machine.machine, ref.tenure, ref.number)
    plain = machine.open_record(ref, record.type, record.codec, record.disk, record.first, record.count, record.block_size, record.length)
    for at, digest in enumerate(record.digests):
        block = plain[at * record.block_size :][: record.block_size]
        if hmac_sha256(digest_key, block)[:16] != digest:
            raise FormatError(name, ref.offset, f"the footer's digest of block {record.first + at} is wrong")
    if record.type == sg.PAGE:
        level = next(n for n in range(5) if sg.FAN_OUT ** (n + 1) == record.count)
        page = Cursor(plain, f"page in {name} at {ref.offset}")
        sg.parse_page(page, level, record.first // record.count, record.block_size, 2**36)
    return [(record.first + at, digest) for at, digest in enumerate(record.digests)]


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="reader.py", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for command in ("list", "restore", "attachments", "checksums", "rebuild", "verify"):
        sub = commands.add_parser(command)
        sub.add_argument("bucket", type=Path)
        keys = sub.add_mutually_exclusive_group(required=True)
        keys.add_argument("--recovery-key", type=Path, help="RSA private key, PEM")
        keys.add_argument("--local-key", type=Path)
        sub.add_argument("--root", required=True, help="fingerprint of the customer's root key: fk-root-…")
        sub.add_argument("--machine", type=bytes.fromhex, required=command != "list")
        sub.add_argument("--whole-chain", action="store_true", help="walk to entry 1 and check every summary")
        if command in ("restore", "attachments"):
            sub.add_argument("--point", type=int, required=True)
            sub.add_argument("--out", type=Path, required=True)
        if command == "restore":
            sub.add_argument("--disk", required=True, help="the disk's label")
    return parser


def run(args: argparse.Namespace) -> object:
    unwrap = recovery_key(args.recovery_key.read_bytes()) if args.recovery_key else local_key(args.local_key.read_text())
    bucket = DirectoryBucket(args.bucket)
    repository, trust = open_repository(bucket, args.root)
    wanted = [args.machine] if args.machine else machines(bucket)
    opened = [Machine(bucket, repository, trust, machine, unwrap, args.whole_chain) for machine in wanted]
    match args.command:
        case "list":
            return {"repository": repository.repository.hex(), "trust": trust.number, "machines": [describe(m) for m in opened]}
        case "restore":
            return restore(opened[0], args.point, args.disk, args.out)
        case "attachments":
            return write_attachments(attachments(opened[0], args.point), args.out)
        case "checksums":
            return checksums(opened[0])
        case "verify":
            return verify(opened[0])
        case _:
            return rebuild(opened[0])


def main() -> int:
    try:
        print(json.dumps(run(arguments().parse_args()), indent=2))
    except (FormatError, OSError, ValueError) as error:
        print(f"reader: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
