"""The component harvest."""
