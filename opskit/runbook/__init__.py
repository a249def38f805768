"""Runbooks: what to do when something is wrong, and walking through it on record."""
