"""The web console: one page, served as files. It knows delivery and the ingest API by their HTTP alone."""
