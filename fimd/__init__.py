"""The daemon that owns the mounts of a user's FlatImage applications."""

__version__ = "0.1.0"
