"""Running: passes over a loader, alone or in many processes, resumed from checkpoints."""
