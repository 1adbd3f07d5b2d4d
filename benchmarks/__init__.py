"""What is behind every figure: the bench, its evidence, costs, and suites made to break things."""
