"""Mounts as supervised processes, and the kernel's own word on what is mounted."""
