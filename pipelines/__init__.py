"""Kubeflow pipelines of the components, and what is done with them: compile, run here, submit."""
