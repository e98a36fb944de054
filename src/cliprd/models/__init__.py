"""Models: students, teachers, and their export."""
