"""The component collect_labels."""
