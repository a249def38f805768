"""PostgreSQL's programs, and the throw-away servers that run them."""
