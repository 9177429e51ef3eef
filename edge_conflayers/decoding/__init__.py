"""The draft/verify loop, what a draft is, and statistics."""
