"""Admission: what the API still takes when change data capture or the writer cannot keep up."""
