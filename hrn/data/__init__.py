"""Image files, bicubic resizing, training patches and test sets."""
