"""What schemathesis is told: components of WebAssembly are bytes."""

import schemathesis

schemathesis.serializer.alias("application/wasm", "application/octet-stream")


@schemathesis.deserializer("application/wasm")
def _bytes(_context: object, response: schemathesis.Response) -> bytes:
    return bytes(response.content)
