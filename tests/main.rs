//! The end-to-end tests: one program, in the order of a job's way.

#[cfg(test)]
mod crash;

#[cfg(test)]
mod tidy;
