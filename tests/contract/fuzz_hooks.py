"""What schemathesis is told: components of WebAssembly are bytes."""

import schemathesis

schemathesis.serializer.alias("application/wasm", "application/octet-stream")


@schemathesis.deserializer("application/wasm")
def _text(_context: object, response: schemathesis.Response) -> str:
    # A schema of the format `binary` is that of a string: a character for each byte.
    return response.content.decode("latin-1")
