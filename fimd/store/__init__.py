"""Content by its digest in the user's cache: verified, bounded, and removed when nobody uses it."""
