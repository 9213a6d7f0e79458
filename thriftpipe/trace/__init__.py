"""Timelines of real runs: what each instance did and when, and for what each request waited."""
