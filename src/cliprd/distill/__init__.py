"""Training of the student. Knows nothing of trackers and schedulers: it reports through a callback."""
