"""Keys: where they come from, where they are kept, and that they show nowhere."""
