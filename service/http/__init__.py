"""Wire formats of the service: requests, uploads, and the OpenAPI page."""
