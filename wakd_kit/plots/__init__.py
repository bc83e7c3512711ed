"""Figures: recorded runs in, (figure, alternative text) out. Nothing is evaluated here."""
