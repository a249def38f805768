"""Mutants: damage that is planted to show that a comparison notices it."""
