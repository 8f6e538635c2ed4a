"""Which layers a stack has, and their mounts, shared by all instances."""
