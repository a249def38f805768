"""Game days: for each runbook a running system that is really broken, and mended."""
