"""The linear system that stands for layers: coordinates, observables, operator, surrogate."""
