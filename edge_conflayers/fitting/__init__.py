"""Fits matrices to what a model does, with numpy."""
