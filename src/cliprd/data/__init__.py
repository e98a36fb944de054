"""Images, sources, shards, augmentation. Knows nothing of teachers."""
