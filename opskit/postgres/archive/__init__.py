"""The custom-format archive of pg_dump: its contents, rows and digests."""
