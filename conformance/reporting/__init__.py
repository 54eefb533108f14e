"""What a run says: the report's lines, the text of a failure, the page."""
