"""The D-Bus interface: one file per interface, and the hardened connection."""
