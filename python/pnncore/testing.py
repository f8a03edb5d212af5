"""Checks for systems of one's own."""
