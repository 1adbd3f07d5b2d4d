"""Logs as large as real ones, and a real TensorBoard and Chromium to look at them with."""
