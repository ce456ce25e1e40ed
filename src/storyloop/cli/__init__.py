"""The command line: it folds the journal and asks the service; it decides nothing."""
