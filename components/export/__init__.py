"""The component export."""
