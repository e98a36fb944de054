"""Images, sources, shards, augmentation. Independent of teachers."""
