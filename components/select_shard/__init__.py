"""The component select_shard."""
