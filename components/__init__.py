"""KFP components, one file a stage. Each calls its stage in cliprd's image and shows the result; no logic here.

A component's body is shipped as source and runs alone in the container: it imports what it needs inside.
"""
