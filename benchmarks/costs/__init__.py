"""What things cost: times as ratios of one run, and memory in processes of their own."""
