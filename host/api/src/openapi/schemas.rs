//! Schemas of values that Rust reads as something more general.

use utoipa::openapi::schema::{ArrayBuilder, KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{RefOr, Schema};

/// The bytes of a WebAssembly component.
#[derive(utoipa::ToSchema)]
#[schema(value_type = String, format = Binary)]
#[expect(dead_code, reason = "only described: bodies are read as bytes")]
pub struct Component(Vec<u8>);

/// Any bytes.
#[derive(utoipa::ToSchema)]
#[schema(value_type = String, format = Binary)]
#[expect(dead_code, reason = "only described: bodies are written as bytes")]
pub struct Binary(Vec<u8>);

/// A list of points in time, as they are answered.
pub fn times() -> impl Into<RefOr<Schema>> {
    let time =
        ObjectBuilder::new().schema_type(Type::String).format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)));
    Schema::Array(ArrayBuilder::new().items(time).build())
}
