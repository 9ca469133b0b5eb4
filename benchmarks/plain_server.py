"""The server that teams write first: FastAPI, a synchronous endpoint, `faster_whisper.WhisperModel.transcribe`.

For comparison only. The model, its directory and its threads are those of `nightscribe serve`; so is voice activity.
"""

from __future__ import annotations

import os
import tempfile
import threading
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, File, Form, UploadFile
from faster_whisper import WhisperModel

from stt_engine import models
from stt_engine.models import ct2_dir

app = FastAPI()
whisper = WhisperModel(str(ct2_dir(models.resolve(os.environ["STT_MODEL"]))), device=os.environ["STT_DEVICE"])
one_at_a_time = threading.Lock()


@app.get("/ready")
def ready() -> dict[str, str]:
    return {"state": "ready"}


@app.post("/transcribe")
def transcribe(file: Annotated[UploadFile, File()], language: Annotated[str | None, Form()] = None) -> dict[str, Any]:
    with tempfile.NamedTemporaryFile() as copy:
        copy.write(file.file.read())
        copy.flush()
        with one_at_a_time:
            segments, info = whisper.transcribe(copy.name, language=language, beam_size=1, vad_filter=True)
            text = "".join(segment.text for segment in segments)
    return {"text": text, "language": info.language, "duration": info.duration}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["STT_PORT"]), log_level="warning")
