"""The component infer_shard."""
