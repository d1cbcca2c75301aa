//! C: clang compiles every `.c` file of a directory together with bindings that are made for it.
//!
//! wit-bindgen writes `policy.h`, which declares what the plugin is called with and what it must define, and `policy.c` behind it. There
//! is no operating system and no libc: `c/` has the little that a policy needs of one, memory above all, a reader of JSON for its
//! config, and a way to put texts together. So nothing of WASI is imported, and clang and wasm-ld are all that is needed.

use std::path::{Path, PathBuf};
use std::process::Command;

use wit_bindgen_core::Files;

use crate::environment::STACK_BYTES;
use crate::tool::Tool;
use crate::world::World;
use crate::{BuildError, encode, language, read, write};

const CLANG: Tool = Tool {
    name: "clang",
    install: "plugins in C are built with LLVM's clang and wasm-ld: on Debian `apt-get install clang lld`",
};

/// What there is of a libc, and what comes besides. The headers are for `#include <…>`.
const LIBRARY: [(&str, &str); 7] = [
    ("stdlib.h", include_str!("c/stdlib.h")),
    ("string.h", include_str!("c/string.h")),
    ("json.h", include_str!("c/json.h")),
    ("text.h", include_str!("c/text.h")),
    ("libc.c", include_str!("c/libc.c")),
    ("json.c", include_str!("c/json.c")),
    ("text.c", include_str!("c/text.c")),
];

/// The name of the bindings and the prefix of their names, whatever the plugin's world is called.
const BINDINGS: &str = "policy";

/// How everything is compiled. Every engine of WebAssembly has the two features.
const FLAGS: [&str; 7] =
    [TARGET, "-std=c17", "-O2", "-fvisibility=hidden", "-mbulk-memory", "-msign-ext", "-nostdlibinc"];

const TARGET: &str = "--target=wasm32-unknown-unknown";

pub(crate) fn build(directory: &Path, target: &Path, world: &World) -> Result<Vec<u8>, BuildError> {
    let include = target.join("include");
    for (name, text) in LIBRARY {
        write(&include.join(name), text.as_bytes())?;
    }
    bindings(world, target)?;
    let compile = |source: &Path, more: &[&str]| -> Result<PathBuf, BuildError> {
        // A plugin's file may have the name of one of ours.
        let place = if source.starts_with(target) { "own" } else { "plugin" };
        let object =
            target.join("objects").join(place).join(source.file_name().unwrap_or_default()).with_extension("o");
        write(&object, b"")?;
        let mut clang = clang(directory);
        clang.args(FLAGS).arg("-isystem").arg(&include).arg("-I").arg(target);
        for (from, to) in [(directory, "/source"), (target, "/target")] {
            clang.arg(format!("-ffile-prefix-map={}={to}", from.display()));
        }
        clang.args(more).arg("-c").arg(source).arg("-o").arg(&object);
        CLANG.run(&mut clang, directory)?;
        Ok(object)
    };
    let mut objects = Vec::new();
    for (name, _) in LIBRARY.iter().filter(|(name, _)| name.ends_with(".c")) {
        // Freestanding: a loop that copies must not become a call of the function that it is in.
        objects.push(compile(&include.join(name), &["-ffreestanding"])?);
    }
    objects.push(compile(&target.join(BINDINGS).with_extension("c"), &[])?);
    objects.push(target.join(format!("{BINDINGS}_component_type.o")));
    for source in language::files(directory, "c")? {
        objects.push(compile(&source, &["-Wall", "-Wextra", "-Wno-unused-parameter"])?);
    }
    let module = target.join("module.wasm");
    let mut linker = clang(directory);
    linker.args([TARGET, "-nostdlib", "-Wl,--no-entry", "-Wl,--stack-first"]);
    linker.arg(format!("-Wl,-z,stack-size={STACK_BYTES}")).args(objects).arg("-o").arg(&module);
    CLANG.run(&mut linker, directory)?;
    encode(&read(&module)?)
}

/// Writes `policy.h`, `policy.c` and an object that has the world in a custom section.
fn bindings(world: &World, target: &Path) -> Result<(), BuildError> {
    let options = wit_bindgen_c::Opts { rename_world: Some(BINDINGS.to_owned()), ..wit_bindgen_c::Opts::default() };
    let mut files = Files::default();
    let generated = options.build().generate(&mut world.resolve.clone(), world.id, &mut files);
    generated.map_err(|error| BuildError::World(format!("{error:#}")))?;
    for (name, contents) in files.iter() {
        write(&target.join(name), contents)?;
    }
    Ok(())
}

/// A clang that looks for headers nowhere but where it is told to.
fn clang(directory: &Path) -> Command {
    let mut clang = Command::new(CLANG.name);
    clang.current_dir(directory).env_remove("CPATH").env_remove("C_INCLUDE_PATH");
    clang
}
