"""The component request_labels."""
