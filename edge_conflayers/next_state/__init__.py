"""The next-state head."""
