//! Documents hold together: the files and headings that links name exist, and no table is cut in two.

use std::path::{Component, Path, PathBuf};

use crate::support::repository;

/// Folders and files whose documents are checked. The Python package is published apart from the repository, and checks its own.
const CHECKED: [&str; 6] = ["README.md", "CHANGELOG.md", "docs", "examples", "host", "plugins"];

/// Pages of the repository's host, which are above the files.
const HOST_PAGES: [&str; 1] = ["../../../security/advisories/new"];

/// A Markdown file of the repository.
struct Document {
    path: PathBuf,
    text: String,
}

impl Document {
    fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self { path: path.to_owned(), text }
    }

    /// The lines outside of fenced blocks, each with its number.
    fn prose(&self) -> Vec<(usize, &str)> {
        let mut is_code = false;
        let outside = self.text.lines().enumerate().filter(|(_, line)| {
            let is_fence = line.trim_start().starts_with("```");
            is_code ^= is_fence;
            !is_code && !is_fence
        });
        outside.map(|(index, line)| (index + 1, line)).collect()
    }

    /// The fragments that its headings can be reached by.
    fn anchors(&self) -> Vec<String> {
        let headings = self.prose().into_iter().filter_map(|(_, line)| line.trim_start_matches('#').strip_prefix(' '));
        headings.map(anchor).collect()
    }

    /// The targets of its inline links, each with the number of its line.
    fn links(&self) -> Vec<(usize, &str)> {
        let mut links = Vec::new();
        for (number, line) in self.prose() {
            for after in line.split("](").skip(1) {
                let (target, _) = after.split_once(')').unwrap_or((after, ""));
                links.push((number, target));
            }
        }
        links
    }
}

/// The fragment of a heading, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|it| it.is_alphanumeric() || matches!(it, ' ' | '-' | '_'));
    kept.map(|it| if it == ' ' { '-' } else { it }).flat_map(char::to_lowercase).collect()
}

/// Whether a folder holds no documents of ours: dependencies, build output, or the Python package.
fn is_foreign(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with('.') || ["target", "node_modules", "python"].contains(&name.as_ref())
}

fn documents() -> Vec<Document> {
    let mut left: Vec<PathBuf> = CHECKED.iter().map(|path| repository().join(path)).collect();
    let mut found = Vec::new();
    while let Some(path) = left.pop() {
        if path.is_dir() {
            let entries = std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path());
            left.extend(entries.filter(|entry| !is_foreign(entry)));
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(Document::read(&path));
        }
    }
    assert!(found.len() > 40, "only {} documents were found", found.len());
    found
}

/// Resolves `..` without looking at the disk.
fn normalized(path: &Path) -> PathBuf {
    let mut result = PathBuf::new();
    for component in path.components() {
        if component == Component::ParentDir {
            result.pop();
        } else {
            result.push(component);
        }
    }
    result
}

#[test]
fn links_of_documents_lead_to_files_and_headings_that_exist() {
    let mut broken = Vec::new();
    for document in documents() {
        for (number, link) in document.links() {
            if link.contains("://") || HOST_PAGES.contains(&link) {
                continue;
            }
            let (path, fragment) = link.split_once('#').unwrap_or((link, ""));
            let folder = document.path.parent().unwrap();
            let target = if path.is_empty() { document.path.clone() } else { normalized(&folder.join(path)) };
            let is_document = target.extension().is_some_and(|extension| extension == "md");
            let has_anchor =
                || fragment.is_empty() || Document::read(&target).anchors().iter().any(|it| it == fragment);
            if !target.exists() || is_document && !has_anchor() {
                broken.push(format!("{}:{number}: {link}", document.path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "these links lead nowhere:\n{}", broken.join("\n"));
}

#[test]
fn tables_of_documents_begin_with_a_heading_and_a_rule() {
    for document in documents() {
        let lines: Vec<&str> = document.prose().into_iter().map(|(_, line)| line).collect();
        let is_row = |index: usize| lines.get(index).is_some_and(|line| line.starts_with('|'));
        for index in (0..lines.len()).filter(|index| is_row(*index) && (*index == 0 || !is_row(*index - 1))) {
            let has_rule = lines.get(index + 1).is_some_and(|line| line.starts_with("| ---"));
            assert!(has_rule, "{}: a table without a rule, or cut in two: {}", document.path.display(), lines[index]);
        }
    }
}
