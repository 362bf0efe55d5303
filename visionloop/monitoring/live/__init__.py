"""The live view: the report and every image of a lake that is changing, for a browser."""
