"""The flow that erases one recording from the tables.

The work is in tasks/forget.py. A file entry point for Prefect (`flows/forget.py:forget`): it is loaded under its bare
stem, so no type is defined here.
"""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State

from tasks.forget import forget_recording
from tasks.form import ExactUri, Uri
from tasks.upkeep import upkeep_state


@flow(name="forget", persist_result=False)
def forget(uri: ExactUri, dest: Uri, spool: Uri | None = None) -> State:
    """Erase one recording: its rows in every table, and what else in DEST names it. It cannot be undone.

    Nothing is kept that says so: if the recording is still in the source, the next run transcribes it again. Delete it
    there first. Prefect keeps the parameters of this run, the URI among them, until the run is deleted.

    Args:
        uri: The recording, exactly as in the column source_uri.
        dest: Folder or s3:// URI of the tables.
        spool: Folder or fsspec URI that the runs were given as --spool, if they were given one.
    """
    return upkeep_state(lambda: forget_recording(uri, dest, spool=spool))
