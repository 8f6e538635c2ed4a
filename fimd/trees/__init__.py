"""What layers and uppers show together, and what they hide: deletions in their one form."""
