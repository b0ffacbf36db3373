"""Trackers show searches elsewhere; the store stays the truth, and what a tracker lacks it takes from there."""
