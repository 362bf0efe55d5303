"""The component list_files."""
