"""The component monitor."""
