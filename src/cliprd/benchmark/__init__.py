"""Zero-shot evaluation: tasks, scores with intervals, fidelity to the teacher, cost and speed."""
