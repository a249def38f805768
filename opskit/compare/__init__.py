"""How a restored copy is compared with the record of its set."""
