"""Dashboards as code: what they show (boards/), and Grafana's JSON of it (dashboards/; `python -m infra.grafana`)."""
