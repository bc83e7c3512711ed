"""Exercises: see ``exercises``."""
