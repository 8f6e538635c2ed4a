"""Making, adding, committing, squashing and removing layers, as transactions on disk."""
