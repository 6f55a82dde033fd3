"""SQL expressions: parsed, checked against a white list, and compiled to operations on columns."""
