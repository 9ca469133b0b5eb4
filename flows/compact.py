"""The flow of the weekly compaction: small parts become large ones, superseded rows go.

The work is in tasks/compact.py. A file entry point for Prefect (`flows/compact.py:compact`): it is loaded under its
bare stem, so no type is defined here.
"""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State

from tasks.compact import compact_tables
from tasks.form import TargetBytes, Uri
from tasks.upkeep import upkeep_state


@flow(name="compact", persist_result=False)
def compact(dest: Uri, target_bytes: TargetBytes = 128_000_000, dry_run: bool = False) -> State:
    """Merge the small parts of the tables, and keep of each recording only the newest row.

    Runs may land meanwhile, and readers read: with the views of deployments/sql they are right at every moment.

    Args:
        dest: Folder or s3:// URI of the tables.
        target_bytes: Size of the parts that it aims at. Each is made in memory, where it is some ten times as large.
        dry_run: Only say what would be done.
    """
    return upkeep_state(lambda: compact_tables(dest, target_bytes=target_bytes, dry_run=dry_run))
