"""The steps in order, as a reader would say them, and the command line."""
