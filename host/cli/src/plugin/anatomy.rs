//! Content of a component, read without compiling it: its imports and exports, the tools that made it, and its initial size.
//!
//! Nothing is validated, so that there is a result also for a component that a server rejects. A truncated component gives the content before
//! its end.

use std::collections::BTreeSet;

use wasmparser::{BinaryReader, CustomSectionReader, Parser, Payload, ProducersSectionReader};

/// Name of the section in which tools record that they took part.
const PRODUCERS: &str = "producers";

/// Size of a page of memory as a power of two, unless a memory states another.
const PAGE_BITS: u32 = 16;

/// Content of a component.
#[derive(Debug, Default)]
pub(super) struct Anatomy {
    /// Names of its imports.
    pub(super) imports: Vec<String>,
    /// Names of its exports.
    pub(super) exports: Vec<String>,
    /// Tools that made it: `language`, `sdk` or `processed-by`, a name, and a version.
    pub(super) producers: BTreeSet<[String; 3]>,
    /// Number of core modules.
    pub(super) core_modules: usize,
    /// Initial size of the memories of all core modules, in bytes.
    pub(super) memory: u64,
    /// Initial number of table elements of all core modules.
    pub(super) table_elements: u64,
    /// Reason why the content may be incomplete.
    pub(super) unread: Option<String>,
}

impl Anatomy {
    pub(super) fn from_component(component: &[u8]) -> Self {
        let mut anatomy = Self::default();
        anatomy.unread = anatomy.read(component).err().map(|error| error.to_string());
        anatomy
    }

    fn read(&mut self, component: &[u8]) -> wasmparser::Result<()> {
        let mut depth = 0_usize;
        for payload in Parser::new(0).parse_all(component) {
            match payload? {
                Payload::ModuleSection { .. } => {
                    self.core_modules += 1;
                    depth += 1;
                }
                Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::ComponentImportSection(section) if depth == 0 => {
                    for import in section {
                        self.imports.push(import?.name.name.to_owned());
                    }
                }
                Payload::ComponentExportSection(section) if depth == 0 => {
                    for export in section {
                        self.exports.push(export?.name.name.to_owned());
                    }
                }
                Payload::MemorySection(section) => {
                    for memory in section {
                        let memory = memory?;
                        let bits = memory.page_size_log2.unwrap_or(PAGE_BITS);
                        let bytes = memory.initial.checked_mul(1_u64.checked_shl(bits).unwrap_or(u64::MAX));
                        self.memory = self.memory.saturating_add(bytes.unwrap_or(u64::MAX));
                    }
                }
                Payload::TableSection(section) => {
                    for table in section {
                        self.table_elements = self.table_elements.saturating_add(table?.ty.initial);
                    }
                }
                Payload::CustomSection(section) if section.name() == PRODUCERS => self.produced(&section)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn produced(&mut self, section: &CustomSectionReader<'_>) -> wasmparser::Result<()> {
        let data = BinaryReader::new(section.data(), section.data_offset());
        for field in ProducersSectionReader::new(data)? {
            let field = field?;
            for made_by in field.values {
                let made_by = made_by?;
                self.producers.insert([field.name, made_by.name, made_by.version].map(str::to_owned));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPONENT: &str = r#"(component
        (import "carillon:policy/log@0.1.0" (instance))
        (component (import "inner" (func)) (core module (memory 3)))
        (core module (memory 2) (table 5 funcref) (table 7 funcref)
            (@producers (language "Rust" "2024") (processed-by "rustc" "1.95.0")))
        (core module (@producers (language "Rust" "2024")))
        (instance)
        (export "carillon:policy/meta@0.1.0" (instance 1)))"#;

    #[test]
    fn its_parts_are_found_where_they_are() {
        let anatomy = Anatomy::from_component(&wat::parse_str(COMPONENT).unwrap());
        assert_eq!(anatomy.imports, ["carillon:policy/log@0.1.0"]);
        assert_eq!(anatomy.exports, ["carillon:policy/meta@0.1.0"]);
        assert_eq!((anatomy.core_modules, anatomy.memory, anatomy.table_elements), (3, 5 << 16, 12));
        let producers: Vec<_> = anatomy.producers.iter().map(|parts| parts.join(" ")).collect();
        assert_eq!(producers, ["language Rust 2024", "processed-by rustc 1.95.0"]);
        assert_eq!(anatomy.unread, None);
    }

    #[test]
    fn what_ends_early_gives_what_came_before() {
        let component = wat::parse_str(COMPONENT).unwrap();
        let anatomy = Anatomy::from_component(&component[..component.len() - 3]);
        assert_eq!(anatomy.imports, ["carillon:policy/log@0.1.0"]);
        assert!(anatomy.unread.is_some() && anatomy.exports.is_empty());
        assert!(Anatomy::from_component(b"nonsense").unread.is_some());
    }
}
