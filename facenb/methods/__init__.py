"""Each paper put together."""
