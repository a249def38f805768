"""How fast opskit is, beside what a user would pick instead, in one run."""
