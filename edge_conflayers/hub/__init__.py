"""Models known by name: registry, downloads, cache."""
