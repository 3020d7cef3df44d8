"""What a person is shown after the first start: where things are, and how to send a message."""

from __future__ import annotations

from infra.local.ports import HOST, Ports


def first_message(ports: Ports) -> str:
    """Addresses, and lines to paste into a shell that send a message and read it back."""
    return f"""
  gateway     http://{HOST}:{ports.gateway}   (here clients send and read)
  ingest API  http://{HOST}:{ports.ingest_api}   (OpenAPI: /docs)
  delivery    http://{HOST}:{ports.delivery}   (OpenAPI: /docs)
  Connect     http://{HOST}:{ports.connect}
  Prometheus  http://{HOST}:{ports.prometheus}   (alerts: /alerts)

Send a first message (`make demo` does more):

  CHAT=http://{HOST}:{ports.gateway} JSON='Content-Type: application/json'
  field() {{ python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }}
  curl -sS $CHAT/v1/users -H "$JSON" -d '{{"username": "alice", "password": "correct horse battery"}}'
  TOKEN=$(curl -sS $CHAT/oauth/token -d grant_type=password -d username=alice \\
    --data-urlencode 'password=correct horse battery' | field access_token)
  AUTH="Authorization: Bearer $TOKEN"
  C=$(curl -sS $CHAT/v1/conversations -H "$AUTH" -H "$JSON" -d '{{"title": "hello", "participants": []}}' \\
    | field conversation_id)
  curl -sS $CHAT/v1/conversations/$C/messages -H "$AUTH" -H "$JSON" -d '{{"body": {{"type": "text", "text": "hi"}}}}'
  curl -sS $CHAT/v1/conversations/$C/messages -H "$AUTH"
  curl -N $CHAT/v1/stream -H "$AUTH"        # what comes next, as it happens
"""
