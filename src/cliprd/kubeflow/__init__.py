"""Kubeflow Pipelines: what runs in a step's pod, and the client that submits and follows runs."""
