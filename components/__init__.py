"""KFP components, one file a stage. Each calls its stage in cliprd's image and shows what came of it; no logic here.

A component's body is shipped as source and runs alone in the container: what it needs it imports inside.
"""
