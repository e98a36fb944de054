"""Training of the student. Independent of trackers and schedulers: it reports through a callback."""
