"""Bridges: taught maps in the place of blocks of dropped layers, for drafts.

- ``bridge``: what a bridge is, and its file
- ``regression``: how its map is taught, in closed form
- ``streams``: the hidden states that it is taught with
- ``replays``: drafts over bridges along a text that is there already
- ``search``: which block of layers to drop
"""
