"""Timers: one heap turns due instants into commands that carry the stamp they were armed for."""
