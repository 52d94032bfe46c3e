"""Drawings of plans and runs as text: what is drawn, and how Mermaid and Graphviz write it."""
