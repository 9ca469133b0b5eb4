"""The steps in order, as a reader would say them, and the command line."""

import os

# Before numpy is imported, for `nightscribe serve` and `transcribe`, whose models live in this process; why:
# tasks/runners/environment.py.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
