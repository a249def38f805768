"""GitHub: what the workflows there need of its interface."""
