"""Networks made to break a swap: exact, refused or loud, and never silently different."""
