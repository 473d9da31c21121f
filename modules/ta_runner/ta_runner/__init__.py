"""ta_runner: runs the trusted applications that the module twin asks for, each in an enclave of its own.

A twin's way through the rooms: `desired` checks it, `reconciler` compares it with what runs, `packages` fetches,
`trusted_app` supervises one enclave, `calls` runs calls as transactions on `store`, `delivery` sends upstream,
`reporting` tells the twin, `link_server` answers the broker, `module` wires them.
"""
