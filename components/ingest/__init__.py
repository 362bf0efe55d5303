"""The component ingest."""
