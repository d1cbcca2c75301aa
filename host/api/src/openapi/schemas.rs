//! Schemas of values that Rust reads as something more general.

use utoipa::openapi::schema::{ArrayBuilder, KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{RefOr, Schema};

/// Bytes of a WebAssembly component.
#[derive(utoipa::ToSchema)]
#[schema(value_type = String, format = Binary)]
#[expect(dead_code, reason = "only described: bodies are read as bytes")]
pub struct Component(Vec<u8>);

/// Arbitrary bytes.
#[derive(utoipa::ToSchema)]
#[schema(value_type = String, format = Binary)]
#[expect(dead_code, reason = "only described: bodies are written as bytes")]
pub struct Binary(Vec<u8>);

/// Returns the schema of a list of times, as the API returns it.
pub fn times() -> impl Into<RefOr<Schema>> {
    let time =
        ObjectBuilder::new().schema_type(Type::String).format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)));
    Schema::Array(ArrayBuilder::new().items(time).build())
}
