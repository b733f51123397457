"""Rendering: views as SVG, HTML, CSV, JSON and terminal output. One module per kind of view, one per format."""
