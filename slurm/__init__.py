"""Typed cluster profiles (none yet)."""
