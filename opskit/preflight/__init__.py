"""What a server lacks for a backup set, and what is done without."""
