"""A run at a glance: its figures while it goes on, and its report when it has ended, for Prefect's UI and as a page."""
