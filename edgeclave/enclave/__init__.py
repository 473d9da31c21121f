"""The enclave: the only code inside the trust boundary (DESIGN section 3).

One process runs one instance of one trusted application. It trusts nothing that comes down its pipe, opens no network
connection, and imports only the standard library, wasmtime, cryptography, CBOR/COSE, msgspec and the primitives of
`edgeclave.ta`, `edgeclave.evidence` and `edgeclave.results`. The way of a request:

    pipe        frames with limits                      messages      what the host may ask, and what it is answered
    server      one request at a time                   loading       package -> verified, compiled component
    instance    keys, epoch, evidence, the call         hardware      what a TEE gives: derived keys and quotes
    guest       the component in its wasmtime store     services      what the component may ask of the TEE
    transaction what a call wants to change             streams       sealed results, per output
    state       the one sealed snapshot                 sealing       sealed blobs with provenance
"""
