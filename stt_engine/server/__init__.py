"""The engine behind HTTP: a model that stays, device batches made of the requests in flight.

    routes ─ upload (bytes counted) ─ Recording ─ split in fair turns ─► Scheduler ◄─ lanes, each owns a model
                                          ▲                                               │
                                          └──────────── chunk transcripts ────────────────┘

Start it with `nightscribe serve`, or `stt_engine.server.run.serve(ServerSettings())`.
"""
