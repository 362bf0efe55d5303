"""The component ingest_shard."""
