"""One training on many nodes of a cluster, by an engine that is there already: Kubeflow's Trainer, or its forerunner.

`manifest` makes what the cluster is told, `follow` tells it and waits.
"""
