"""The proof: a model as a graph, and which of its values cross the border of a span."""
