//! Compiles libFuzzer: `script/fuzz` links the archive with the fuzz targets.
