"""A folder's recordings through a running server: many requests at a time, retried, resumed."""
