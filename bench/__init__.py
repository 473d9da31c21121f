"""Ratios against bare references, measured in one run (DESIGN section 10): `make bench`."""
