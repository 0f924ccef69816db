"""A before/after annotation study in text exports: its layout, times, answers and saving."""
