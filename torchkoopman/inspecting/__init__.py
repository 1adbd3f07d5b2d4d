"""One look at a whole network: its repeated blocks found, streamed once, and measured."""
