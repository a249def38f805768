"""Damage that a comparison must notice, and what it did notice."""
