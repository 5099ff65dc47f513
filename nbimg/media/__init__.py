"""Images and videos that come in: read, measured, kept by their content."""
