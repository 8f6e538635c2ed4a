"""A data directory and its one writable view, which its instances share."""
