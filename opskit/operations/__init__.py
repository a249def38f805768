"""What opskit does, one module for each thing: a request in, an outcome out."""
