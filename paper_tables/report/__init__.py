"""Tables, figures and claims to files: Markdown, LaTeX, PNG, SVG, one HTML page, and the README's blocks."""
