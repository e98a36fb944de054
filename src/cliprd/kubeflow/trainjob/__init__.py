"""One training on many nodes of a cluster, by an engine that is there already: Kubeflow's Trainer, or its predecessor.

`spec` makes the Kubernetes objects, `watch` creates them and waits for their end through `cluster`.
"""
