"""Tests of the suite itself: it must catch known mistakes, and must not accuse honest implementations."""
