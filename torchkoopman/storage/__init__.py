"""Storage: files that are whole, say what they are, and are checked before anything is believed."""
