"""The engine behind HTTP: a model that stays, device batches made of the requests in flight.

    routes ─ upload (bytes counted) ─► splitting processes, in turns ─► Recording ─► Scheduler ◄─ lanes, a model each
                                                                            ▲                         │
                                                                            └──── chunk transcripts ──┘

Start it with `nightscribe serve`, or `stt_engine.server.run.serve(ServerSettings())`.
"""
