//! Checks of a component before it is compiled: its size in every respect, its imports and its exports.
//!
//! The time is proportional to the number of bytes. The checks look into no function and trust nothing: the compiler validates in a process
//! of its own what passes here. So most errors of an upload are reported at once, and a component that was made to be slow does not reach the
//! compiler.

use wasmparser::{Encoding, Parser, Payload};

use super::component::{Role, interface, is_allowed_import};
use super::load_error::LoadError;

/// Maximum number of functions of all modules together. Runtimes of Python and JavaScript have up to 20,000.
const FUNCTIONS: usize = 65_536;

/// Maximum number of modules and components in a component, and maximum depth of nesting. Linkers make fewer than 100 from one source, in two
/// layers.
const PARTS: usize = 1_024;
const DEPTH: usize = 8;

/// Maximum number of entries of all declaring sections: types, imports, aliases, instances, exports and the like.
const ENTRIES: usize = 262_144;

/// Counts so far.
#[derive(Default)]
struct Count {
    functions: usize,
    parts: usize,
    entries: usize,
}

/// Rejects a component that is too large in any respect, imports what a policy does not get, or has no role.
pub(super) fn check(component: &[u8]) -> Result<(), LoadError> {
    let malformed = |error: wasmparser::BinaryReaderError| LoadError::Compile(error.to_string());
    let (mut count, mut depth) = (Count::default(), 0_usize);
    let (mut has_meta, mut has_role) = (false, false);
    for payload in Parser::new(0).parse_all(component) {
        let payload = payload.map_err(malformed)?;
        match &payload {
            Payload::Version { encoding: Encoding::Module | Encoding::Component, .. } => {
                (depth, count.parts) = (depth + 1, count.parts + 1);
            }
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::CodeSectionStart { count: functions, .. } => {
                count.functions = count.functions.saturating_add(*functions as usize);
            }
            Payload::ComponentImportSection(imports) if depth == 1 => {
                for import in imports.clone() {
                    let name = import.map_err(malformed)?.name.name;
                    if !is_allowed_import(name) {
                        return Err(LoadError::Import(name.to_owned()));
                    }
                }
            }
            Payload::ComponentExportSection(exports) if depth == 1 => {
                for export in exports.clone() {
                    let name = interface(export.map_err(malformed)?.name.name);
                    has_meta |= name == Some("meta");
                    has_role |= name.is_some_and(|name| Role::ALL.iter().any(|role| role.as_str() == name));
                }
            }
            _ => {}
        }
        count.entries = count.entries.saturating_add(entries(&payload) as usize);
        count.check(depth)?;
    }
    match (has_meta, has_role) {
        (false, _) => Err(LoadError::NoMeta),
        (true, false) => Err(LoadError::NoRole),
        (true, true) => Ok(()),
    }
}

impl Count {
    fn check(&self, depth: usize) -> Result<(), LoadError> {
        let bounds = [
            ("functions", self.functions, FUNCTIONS),
            ("modules and components in it", self.parts, PARTS),
            ("layers of components", depth, DEPTH),
            ("declarations", self.entries, ENTRIES),
        ];
        match bounds.into_iter().find(|(_, count, most)| count > most) {
            Some((what, _, most)) => Err(LoadError::TooComplex { what, most }),
            None => Ok(()),
        }
    }
}

/// Returns the number of declarations in a section.
fn entries(payload: &Payload<'_>) -> u32 {
    match payload {
        Payload::TypeSection(section) => section.count(),
        Payload::ImportSection(section) => section.count(),
        Payload::TableSection(section) => section.count(),
        Payload::MemorySection(section) => section.count(),
        Payload::GlobalSection(section) => section.count(),
        Payload::ExportSection(section) => section.count(),
        Payload::ElementSection(section) => section.count(),
        Payload::DataSection(section) => section.count(),
        Payload::InstanceSection(section) => section.count(),
        Payload::CoreTypeSection(section) => section.count(),
        Payload::ComponentInstanceSection(section) => section.count(),
        Payload::ComponentAliasSection(section) => section.count(),
        Payload::ComponentTypeSection(section) => section.count(),
        Payload::ComponentCanonicalSection(section) => section.count(),
        Payload::ComponentImportSection(section) => section.count(),
        Payload::ComponentExportSection(section) => section.count(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> LoadError {
        check(&wat::parse_str(text).unwrap()).unwrap_err()
    }

    #[test]
    fn what_lies_deeper_is_not_the_components_own() {
        let inner = r#"(component (import "wasi:sockets/tcp@0.2.0" (instance)))"#;
        assert!(matches!(refusal(&format!("(component {inner})")), LoadError::NoMeta));
        assert!(matches!(refusal(inner), LoadError::Import(name) if name == "wasi:sockets/tcp@0.2.0"));
        let role = r#"(component (instance $i) (export "carillon:policy/judge@0.1.0" (instance $i)))"#;
        assert!(matches!(refusal(role), LoadError::NoMeta));
        let meta = r#"(component (instance $i) (export "carillon:policy/meta@0.1.0" (instance $i)))"#;
        assert!(matches!(refusal(meta), LoadError::NoRole));
    }

    #[test]
    fn functions_are_counted_over_all_modules() {
        let module = format!("(core module {})", "(func)".repeat(FUNCTIONS / 2 + 1));
        let both = refusal(&format!("(component {module} {module})"));
        assert!(matches!(both, LoadError::TooComplex { what: "functions", most: FUNCTIONS }), "{both}");
        assert!(matches!(refusal(&format!("(component {module})")), LoadError::NoMeta));
    }

    #[test]
    fn bytes_that_break_off_are_no_component() {
        assert!(matches!(check(b"\0asm\x0d\0\x01\0\x01"), Err(LoadError::Compile(_))));
    }
}
