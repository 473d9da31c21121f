"""The vendors' services that publish endorsements: asked only by `edgeclave endorsements fetch`, never while verifying.

What they answer needs no trust: it is verified up to a pinned root, all of it, before any of it is returned.
"""
