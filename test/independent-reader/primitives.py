"""The conventions (§1) and the cryptography (§2) of docs/format.md."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Protocol

import zstandard
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

INTEGER_MAX = 2**53 - 1
TAG = 16


class FormatError(Exception):
    """Something in the bucket is not as docs/format.md says, or has been tampered with."""

    def __init__(self, name: str, offset: int, problem: str) -> None:
        super().__init__(f"{name}, offset {offset}: {problem}")


class Cursor:
    """Reads one object from front to back. Offsets in errors count from the start of `name`."""

    def __init__(self, data: bytes, name: str, base: int = 0) -> None:
        self.data, self.name, self.base, self.at = data, name, base, 0

    def fail(self, problem: str) -> NoReturn:
        raise FormatError(self.name, self.base + self.at, problem)

    def check(self, condition: bool, problem: str) -> None:
        if not condition:
            self.fail(problem)

    def take(self, length: int) -> bytes:
        self.check(length <= len(self.data) - self.at, f"needs {length} bytes, {len(self.data) - self.at} are left")
        self.at += length
        return self.data[self.at - length : self.at]

    def before(self) -> bytes:
        """All bytes read so far: what signatures and macs cover."""
        return self.data[: self.at]

    def sub(self, length: int) -> Cursor:
        base = self.base + self.at
        return Cursor(self.take(length), self.name, base)

    def uint(self, width: int) -> int:
        value = int.from_bytes(self.take(width), "big")
        self.check(value <= INTEGER_MAX, "integer above 2^53-1")
        return value

    def u8(self) -> int:
        return self.uint(1)

    def u16(self) -> int:
        return self.uint(2)

    def u32(self) -> int:
        return self.uint(4)

    def u64(self) -> int:
        return self.uint(8)

    def varint(self, low: int = 0, high: int = INTEGER_MAX) -> int:
        start, value = self.at, 0
        for position in range(8):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << (7 * position)
            if byte < 0x80:
                self.check(byte != 0 or position == 0, "varint is not in its shortest form")
                self.check(low <= value <= high, f"varint {value} at {self.base + start} is outside {low}..{high}")
                return value
        self.fail("varint is longer than 8 bytes")

    def bytes_(self) -> bytes:
        return self.take(self.varint())

    def text(self) -> str:
        try:
            return self.bytes_().decode("utf-8", errors="strict")
        except UnicodeDecodeError:
            self.fail("text is not valid UTF-8")

    def expect(self, value: bytes, what: str) -> None:
        self.check(self.take(len(value)) == value, f"{what} is not {value!r}")

    def flag(self, what: str) -> bool:
        value = self.u8()
        self.check(value in (0, 1), f"{what} is {value}, not 0 or 1")
        return value == 1

    def count(self, low: int = 0, high: int = INTEGER_MAX) -> int:
        """A number of entries that follow. Each takes a byte at least, so it cannot exceed what is left."""
        return self.varint(low, min(high, max(low, len(self.data) - self.at)))

    def end(self) -> None:
        self.check(self.at == len(self.data), f"{len(self.data) - self.at} trailing bytes")

    def ascending(self, keys: Iterable[object], what: str) -> None:
        listed = list(keys)
        self.check(all(a < b for a, b in zip(listed, listed[1:])), f"{what} are not strictly ascending")  # type: ignore[operator]

    def public_key(self) -> PublicKey:
        algorithm = self.u8()
        self.check(algorithm in KEY_BYTES, f"unknown signature algorithm {algorithm}")
        key = self.bytes_()
        self.check(len(key) == KEY_BYTES[algorithm], f"a public key of algorithm {algorithm} has {KEY_BYTES[algorithm]} bytes")
        return PublicKey(algorithm, key)

    def signature(self) -> Signature:
        """`u8 algorithm ‖ signature bytes`, together with what precedes it."""
        message, offset = self.before(), self.base + self.at
        algorithm = self.u8()
        self.check(algorithm in SIGNATURE_BYTES, f"unknown signature algorithm {algorithm}")
        return Signature(algorithm, self.take(SIGNATURE_BYTES[algorithm]), message, self.name, offset)


KEY_BYTES = {1: 32, 2: 65, 3: 97}
SIGNATURE_BYTES = {1: 64, 2: 64, 3: 96}
CURVES = {
    2: (ec.SECP256R1(), hashes.SHA256(), 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551),
    3: (
        ec.SECP384R1(),
        hashes.SHA384(),
        0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
    ),
}


@dataclass(frozen=True)
class PublicKey:
    algorithm: int
    key: bytes

    @property
    def encoded(self) -> bytes:
        return bytes([self.algorithm, len(self.key)]) + self.key

    @property
    def hash(self) -> bytes:
        return sha256(b"failkit/v1/public-key\0" + bytes([self.algorithm]) + self.key)

    @property
    def key_id(self) -> bytes:
        return self.hash[:16]


@dataclass(frozen=True)
class Signature:
    algorithm: int
    value: bytes
    message: bytes
    name: str
    offset: int

    def verify(self, key: PublicKey, domain: str, message: bytes | None = None) -> None:
        signed = domain.encode() + b"\0" + bytes([self.algorithm]) + (self.message if message is None else message)
        try:
            if self.algorithm != key.algorithm:
                raise InvalidSignature
            if self.algorithm == 1:
                Ed25519PublicKey.from_public_bytes(key.key).verify(self.value, signed)
            else:
                verify_ecdsa(self.algorithm, key.key, self.value, signed)
        except (InvalidSignature, ValueError):
            raise FormatError(self.name, self.offset, f"the signature ({domain}) by {key.key_id.hex()} is wrong") from None


def verify_ecdsa(algorithm: int, point: bytes, value: bytes, signed: bytes) -> None:
    curve, digest, order = CURVES[algorithm]
    half = len(value) // 2
    r, s = int.from_bytes(value[:half], "big"), int.from_bytes(value[half:], "big")
    if 2 * s > order:
        raise InvalidSignature
    key = ec.EllipticCurvePublicKey.from_encoded_point(curve, point)
    key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(digest))


def fingerprint(key: PublicKey) -> str:
    digits = base64.b32encode(key.hash[:20]).decode().lower()
    return "fk-root-" + "-".join(digits[i : i + 4] for i in range(0, 32, 4))


def sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


def same(a: bytes, b: bytes) -> bool:
    return hmac.compare_digest(a, b)


@dataclass(frozen=True)
class DataKey:
    """A data key of (machine, epoch), from which everything else is derived."""

    key: bytes
    repository: bytes
    machine: bytes
    epoch: int

    def derive(self, label: str, context: bytes, length: int) -> bytes:
        salt = sha256(b"failkit/v1/data-key\0", self.repository, self.machine, self.epoch.to_bytes(4, "big"))
        return HKDF(hashes.SHA256(), length, salt, label.encode() + b"\0" + context).derive(self.key)

    def derive_committed(self, label: str, header: bytes) -> tuple[bytes, bytes, bytes]:
        """AES key, nonce and commitment of a segment or a manifest."""
        derived = self.derive(label, sha256(header), 76)
        return derived[:32], derived[32:44], derived[44:]


def gcm_open(key: bytes, nonce: bytes, sealed: bytes, aad: bytes, name: str, offset: int) -> bytes:
    try:
        return AESGCM(key).decrypt(nonce, sealed, aad)
    except InvalidTag:
        raise FormatError(name, offset, "does not open: it is not the record that was sealed here") from None


def decompress(body: bytes, length: int, name: str, offset: int) -> bytes:
    """One zstd frame, exactly `length` bytes. Fed in small pieces, so that a bomb is noticed early."""
    try:
        if zstandard.get_frame_parameters(body).dict_id != 0:
            raise FormatError(name, offset, "the zstd frame wants a dictionary")
        frame, plain = zstandard.ZstdDecompressor().decompressobj(), bytearray()
        for start in range(0, len(body), 1024):
            if frame.eof or len(plain) > length:
                break
            plain += frame.decompress(body[start : start + 1024])
            consumed = start + 1024
        if not frame.eof or len(plain) != length or frame.unused_data or consumed < len(body):
            raise FormatError(name, offset, f"the body is not one zstd frame of exactly {length} bytes")
    except zstandard.ZstdError as error:
        raise FormatError(name, offset, f"zstd: {error}") from None
    return bytes(plain)


def inv(n: int) -> str:
    return dec(INTEGER_MAX - n, 16)


def dec(n: int, digits: int) -> str:
    return f"{n:0{digits}d}"


class Bucket(Protocol):
    def get(self, name: str) -> bytes: ...
    def get_range(self, name: str, offset: int, length: int) -> bytes: ...
    def list(self, prefix: str) -> list[str]: ...


class DirectoryBucket:
    """Objects are files at root/<name>."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def get(self, name: str) -> bytes:
        try:
            return (self.root / name).read_bytes()
        except OSError as error:
            raise FormatError(name, 0, error.strerror or "cannot be read") from None

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        try:
            with (self.root / name).open("rb") as file:
                file.seek(offset)
                data = file.read(length)
        except OSError as error:
            raise FormatError(name, offset, error.strerror or "cannot be read") from None
        if len(data) != length:
            raise FormatError(name, offset, f"needs {length} bytes, {len(data)} are left")
        return data

    def list(self, prefix: str) -> list[str]:
        """Names below a prefix that ends in `/`, sorted."""
        return sorted(p.relative_to(self.root).as_posix() for p in (self.root / prefix).rglob("*") if p.is_file())


def numbered(bucket: Bucket, prefix: str, digits: int, inverted: bool = False) -> dict[int, str]:
    """The names `prefix` + a number of so many digits, by number, in the bucket's order. Names of another form are ignored."""
    names = {}
    for name in bucket.list(prefix):
        part = name[len(prefix) :]
        value = int(part) if re.fullmatch(r"[0-9]+", part) and len(part) == digits else -1
        value = INTEGER_MAX - value if inverted and value >= 0 else value
        if 0 <= value <= INTEGER_MAX:
            names[value] = name
    return names
