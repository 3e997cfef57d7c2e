"""A batch's state on disk: ledger, output folder, lock, event log."""
