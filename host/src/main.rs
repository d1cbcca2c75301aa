//! The `carillon` program; everything it does is in the library.

fn main() -> std::process::ExitCode {
    carillon::cli::main()
}
