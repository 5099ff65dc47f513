"""Results on disk: files, provenance, journal."""
