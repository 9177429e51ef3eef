"""Models: what a user may call one, where its file can be had, and the cache of those here."""
