"""Films and their annotations: reading, datalists, audits, synthetic films."""
