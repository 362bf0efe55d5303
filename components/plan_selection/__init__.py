"""The component plan_selection."""
