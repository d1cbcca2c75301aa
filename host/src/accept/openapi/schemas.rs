//! Schemas of values that Rust reads as something more general.

use utoipa::openapi::schema::{ArrayBuilder, KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{RefOr, Schema};

/// A point in time, as a client gives it.
#[derive(utoipa::ToSchema)]
#[schema(examples("2026-11-20T10:00:00Z", "+90s", 1_795_168_800))]
#[serde(untagged)]
#[expect(dead_code, reason = "only described: times are read from JSON values")]
pub enum TimeInput {
    /// RFC 3339 with an offset, or `+` and a duration from now such as `+90s`.
    Text(String),
    /// Unix seconds.
    Seconds(f64),
}

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
