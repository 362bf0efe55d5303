"""The component publish."""
