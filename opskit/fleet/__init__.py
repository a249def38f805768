"""Fleet: the same operations on many machines, by a queue in PostgreSQL."""
