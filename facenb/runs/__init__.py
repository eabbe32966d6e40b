"""Run folders, records, notebooks as jobs, and the report."""
