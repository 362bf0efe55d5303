"""The component watch."""
