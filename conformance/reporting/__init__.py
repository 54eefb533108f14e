"""The output of a run: the lines of the report, the text of a failure, the page."""
