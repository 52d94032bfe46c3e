"""Views: pure folds from events to changed rows, and the loop that stores them in batches."""
