"""DAGs of the Kubeflow pipelines, and nothing else; `cliprd.kubeflow` finds them by entry points `cliprd.pipelines`."""
