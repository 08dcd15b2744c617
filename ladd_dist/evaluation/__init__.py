"""Measurement of finished students and their teachers on held-out noise."""
