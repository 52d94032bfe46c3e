"""Checks exports of Stretto's log. `verify.py` can be copied away and run alone."""
