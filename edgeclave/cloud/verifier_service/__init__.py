"""The verifier as an HTTP service: appraises evidence of others and answers signed attestation results.

Nothing is remembered between requests, so that any number of replicas can stand behind a balancer: they share the key
folder (`keyring`), the policy file and the endorsements, and nothing else.
"""
