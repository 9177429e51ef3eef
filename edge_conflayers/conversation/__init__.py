"""A conversation with a model: its messages, kept on disk turn by turn, and its next answer."""
