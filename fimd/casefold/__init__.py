"""The case-insensitive view of a directory tree, with the semantics of CIOPFS.

`view` serves it (and imports pyfuse3, which is slow); the other modules know nothing of FUSE.
"""
