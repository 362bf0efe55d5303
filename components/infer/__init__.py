"""The component infer."""
