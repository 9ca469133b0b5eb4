"""One module per backend, all behind `stt_engine.backends.base.Backend`; imported only when asked for."""
