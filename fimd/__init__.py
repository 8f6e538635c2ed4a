"""The daemon that owns the mounts of a user's FlatImage applications."""
