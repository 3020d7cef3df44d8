"""How programs tell of themselves: metrics from their catalogues, spans by OTLP. The one part of `infra` that programs
import; it knows none of them."""
