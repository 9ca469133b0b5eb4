"""Recordings and the built-in model; read through `stt_engine.models` and the self-check, never by path."""
