"""What a stage leaves: a folder with a manifest, made in a workspace, of a known identity."""
