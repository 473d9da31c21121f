"""Statuses of a failed call that the enclave itself gives. A trusted application's own failures keep theirs."""

SUCCESS = 200
"""A call that succeeded. No failure may have it: whoever reads the answer could not tell them apart."""
BAD_PAYLOAD = 400
"""The payload is not JSON."""
CHANNEL_TOO_WEAK = 403
"""The method asks for a protected channel and the call came in the clear."""
UNKNOWN_METHOD = 404
"""The manifest declares no such method."""
PAYLOAD_TOO_LARGE = 413
"""The payload is over the manifest's `message_kib`."""
TRAPPED = 500
"""The trusted application crashed, ran out of memory, or used what it was not granted."""
BAD_REPLY = 502
"""The reply is not JSON or over `message_kib`, or a failure claims to be a success."""
DEADLINE_EXCEEDED = 504
"""The call took longer than its deadline."""
