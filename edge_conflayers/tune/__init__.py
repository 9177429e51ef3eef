"""Teaches the head and finds skip sets before they are needed."""
