"""The gate, and the champion: promoted, kept in a folder, S3 or MLflow's registry, rolled back."""
