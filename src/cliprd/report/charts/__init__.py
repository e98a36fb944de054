"""Charts as inline SVG: each module draws one kind from plain numbers."""
