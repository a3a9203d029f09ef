"""Training: from an h5 file of image pairs to a checkpoint."""
