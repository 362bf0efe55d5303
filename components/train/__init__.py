"""The component train."""
