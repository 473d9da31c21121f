"""The AMD SEV-SNP attestation report, byte by byte; nothing here verifies anything.

Source: AMD document 56860 (SEV-SNP Firmware ABI), table "ATTESTATION_REPORT": versions 2 (1.51), 3 (1.55, adds CPUID),
4 and 5 (1.58, adds the mitigation vectors). Little-endian, 1184 bytes: 0x2A0 signed ones, then the signature, whose r
and s are 72 bytes each, little-endian.

>>> parse_report(bytes(1184))
Traceback (most recent call last):
edgeclave.errors.EvidenceError: not an SEV-SNP attestation report: unknown version 0 [malformed-quote]; ...
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from edgeclave.errors import EvidenceError

Product = Literal["Milan", "Genoa", "Turin"]
PRODUCTS: tuple[Product, ...] = get_args(Product)
SigningKey = Literal["VCEK", "VLEK"]

REPORT_BYTES, SIGNED_BYTES = 0x4A0, 0x2A0
CHIP_ID_BYTES, TURIN_CHIP_ID_BYTES = 64, 8
VERSIONS = range(2, 6)
MAX_HEX_BYTES = 4 * REPORT_BYTES  # with spaces and ends of lines
_ECDSA_P384_SHA384 = 1
_SIGNING_KEYS: dict[int, SigningKey] = {0: "VCEK", 1: "VLEK"}
_SCALAR_BYTES, _UNUSED_SIGNATURE = 72, bytes(512 - 2 * 72)
_FIRST_VERSION_WITH_CPUID, _FIRST_VERSION_WITH_MITIGATIONS = 3, 5

_LAYOUT = struct.Struct(
    "<II Q 16s16s II 8s Q I4x"  # 0x000 version, guest SVN, policy, family, image, VMPL, algorithm, TCB, platform, key
    "64s48s32s48s48s32s32s"  # 0x050 report data, measurement, host data, ID key, author key, report id, report id of MA
    "8s3B21x64s8s"  # 0x180 reported TCB, CPUID family, model, stepping, chip id, committed TCB
    "3Bx3Bx8sQQ152x"  # 0x1E8 current and committed firmware, launch TCB, launch and current mitigations
    "72s72s368s"  # 0x2A0 r, s, unused
)


class Tcb(NamedTuple):
    """Security versions of the firmware components; `fmc` exists from Turin on."""

    bootloader: int
    tee: int
    snp: int
    microcode: int
    fmc: int | None = None

    def __str__(self) -> str:
        return " ".join(f"{name} {value}" for name, value in self._asdict().items() if value is not None)


def read_tcb(raw: bytes, product: Product) -> Tcb:
    """TCB_VERSION, 8 bytes; Turin orders them otherwise (56860, structure TCB_VERSION)."""
    if product == "Turin":
        return Tcb(bootloader=raw[1], tee=raw[2], snp=raw[3], microcode=raw[7], fmc=raw[0])
    return Tcb(bootloader=raw[0], tee=raw[1], snp=raw[6], microcode=raw[7])


def write_tcb(tcb: Tcb, product: Product) -> bytes:
    """TCB_VERSION of these components, the others 0; undoes `read_tcb`."""
    if product == "Turin":
        return bytes([tcb.fmc or 0, tcb.bootloader, tcb.tee, tcb.snp, 0, 0, 0, tcb.microcode])
    return bytes([tcb.bootloader, tcb.tee, 0, 0, 0, 0, tcb.snp, tcb.microcode])


@dataclass(frozen=True)
class GuestPolicy:
    """POLICY (56860 table "Guest Policy"): what the guest's owner allowed at launch; cannot change afterwards."""

    raw: int

    @property
    def abi(self) -> tuple[int, int]:
        """Minimum firmware ABI, major and minor."""
        return self.raw >> 8 & 0xFF, self.raw & 0xFF

    @property
    def smt_allowed(self) -> bool:
        return bool(self.raw >> 16 & 1)

    @property
    def migration_agent_allowed(self) -> bool:
        """A migration agent reads the guest's memory and hands it to another platform."""
        return bool(self.raw >> 18 & 1)

    @property
    def debug_allowed(self) -> bool:
        """The host may read and write the guest's memory."""
        return bool(self.raw >> 19 & 1)

    @property
    def single_socket_required(self) -> bool:
        return bool(self.raw >> 20 & 1)


@dataclass(frozen=True)
class Report:
    """All fields. TCB versions are raw, since their order depends on the product, which the certificates tell.

    `cpuid` is (family, model, stepping), None in version 2; the mitigation vectors are None before version 5;
    `chip_id` is 64 bytes, zeros if the host masked it, with 8 bytes in use on Turin; firmware is (major, minor, build).
    """

    version: int
    guest_svn: int
    policy: GuestPolicy
    family_id: bytes
    image_id: bytes
    vmpl: int
    current_tcb: bytes
    platform_info: int
    author_key_enabled: bool
    signing_key: SigningKey
    report_data: bytes
    measurement: bytes
    host_data: bytes
    id_key_digest: bytes
    author_key_digest: bytes
    report_id: bytes
    report_id_of_migration_agent: bytes
    reported_tcb: bytes
    cpuid: tuple[int, int, int] | None
    chip_id: bytes
    committed_tcb: bytes
    current_firmware: tuple[int, int, int]
    committed_firmware: tuple[int, int, int]
    launch_tcb: bytes
    launch_mitigations: int | None
    current_mitigations: int | None
    signed: bytes
    signature: tuple[int, int]

    @property
    def product(self) -> Product | None:
        """What the report says it ran on (CPUID leaf 1), None if it does not or nobody here knows it."""
        return None if self.cpuid is None else _product(*self.cpuid[:2])


def from_hex(data: bytes) -> bytes:
    """The report that a file holds as text in hex, as tools print it; anything else as it is."""
    if not 2 * REPORT_BYTES <= len(data) <= MAX_HEX_BYTES:
        return data
    try:
        return bytes.fromhex(data.decode("ascii"))
    except ValueError:
        return data


def is_report(data: bytes) -> bool:
    """Whether these bytes are meant as an attestation report."""
    if len(data) != REPORT_BYTES:
        return False
    version, algorithm = struct.unpack_from("<I", data)[0], struct.unpack_from("<I", data, 0x34)[0]
    return version in VERSIONS and algorithm == _ECDSA_P384_SHA384


def parse_report(data: bytes) -> Report:
    """Raises EvidenceError `malformed-quote`."""
    if len(data) != REPORT_BYTES:
        raise _malformed(f"{len(data)} bytes instead of {REPORT_BYTES}")
    (
        version, guest_svn, policy, family_id, image_id, vmpl, algorithm, current_tcb, platform_info, key_info,
        report_data, measurement, host_data, id_key, author_key, report_id, report_id_of_migration_agent,
        reported_tcb, family, model, stepping, chip_id, committed_tcb,
        current_build, current_minor, current_major, committed_build, committed_minor, committed_major,
        launch_tcb, launch_mitigations, current_mitigations, r, s, unused,
    ) = _LAYOUT.unpack(data)  # fmt: skip
    if version not in VERSIONS:
        raise _malformed(f"unknown version {version}")
    if algorithm != _ECDSA_P384_SHA384:
        raise _malformed(f"signature algorithm {algorithm} is not ECDSA P-384 with SHA-384")
    signing_key = _SIGNING_KEYS.get(key_info >> 2 & 0b111)
    if signing_key is None:
        raise _malformed("it is signed by neither a VCEK nor a VLEK")
    if unused != _UNUSED_SIGNATURE:
        raise _malformed("bytes after the signature")
    with_mitigations = version >= _FIRST_VERSION_WITH_MITIGATIONS
    return Report(
        version=version,
        guest_svn=guest_svn,
        policy=GuestPolicy(policy),
        family_id=family_id,
        image_id=image_id,
        vmpl=vmpl,
        current_tcb=current_tcb,
        platform_info=platform_info,
        author_key_enabled=bool(key_info & 1),
        signing_key=signing_key,
        report_data=report_data,
        measurement=measurement,
        host_data=host_data,
        id_key_digest=id_key,
        author_key_digest=author_key,
        report_id=report_id,
        report_id_of_migration_agent=report_id_of_migration_agent,
        reported_tcb=reported_tcb,
        cpuid=(family, model, stepping) if version >= _FIRST_VERSION_WITH_CPUID else None,
        chip_id=chip_id,
        committed_tcb=committed_tcb,
        current_firmware=(current_major, current_minor, current_build),
        committed_firmware=(committed_major, committed_minor, committed_build),
        launch_tcb=launch_tcb,
        launch_mitigations=launch_mitigations if with_mitigations else None,
        current_mitigations=current_mitigations if with_mitigations else None,
        signed=data[:SIGNED_BYTES],
        signature=(int.from_bytes(r, "little"), int.from_bytes(s, "little")),
    )


def _product(family: int, model: int) -> Product | None:
    """Family and model of CPUID leaf 1; Bergamo and Siena share the models and the root of Genoa."""
    if family == 0x19 and model <= 0x0F:
        return "Milan"
    if family == 0x19 and (0x10 <= model <= 0x1F or 0xA0 <= model <= 0xAF):
        return "Genoa"
    if family == 0x1A and model <= 0x1F:
        return "Turin"
    return None


def _malformed(what: str) -> EvidenceError:
    return EvidenceError(
        "malformed-quote",
        f"not an SEV-SNP attestation report: {what}",
        advice="do not use it; it was altered or cut off, or is something else",
    )
