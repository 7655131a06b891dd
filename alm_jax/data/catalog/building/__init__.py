"""From a declaration to a prepared dataset: listing, shards, index, checksums and card."""
