"""How a backup set is created."""
