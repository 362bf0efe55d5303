"""The component select."""
