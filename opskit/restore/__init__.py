"""How a backup set is restored."""
