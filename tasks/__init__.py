"""One step of a night per module: storage and catalog in, Parquet out. Knows nothing of the flow that calls it."""
