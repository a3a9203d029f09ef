"""From an h5 file to a checkpoint."""
