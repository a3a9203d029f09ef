"""Images, enlargement and reduction without a network, training patches, and test sets."""
