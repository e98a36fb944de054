"""The six stages: plain functions of `params` and folders, one module each."""
