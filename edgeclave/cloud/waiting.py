"""Names of what held messages wait for: keys of the held table."""

from __future__ import annotations


def for_evidence(digest: bytes) -> bytes:
    """Evidence, by its digest."""
    return b"evidence" + digest


def for_instance(instance_id: bytes) -> bytes:
    """Any evidence of an instance."""
    return b"instance" + instance_id


def for_room(product: bytes) -> bytes:
    """Room for another instance of a product."""
    return b"room" + product


def for_place(product: bytes, instance_id: bytes, output: str, sequence: int) -> bytes:
    """A result's turn in its stream."""
    return for_output(product, instance_id, output) + sequence.to_bytes(8, "big")


def for_output(product: bytes, instance_id: bytes, output: str) -> bytes:
    """The common beginning of all places of an instance on an output, which sort by sequence number."""
    return for_any_place(product) + instance_id + bytes([len(output)]) + output.encode()


def for_any_place(product: bytes) -> bytes:
    """The common beginning of all places in the streams of a product."""
    return b"result" + product
