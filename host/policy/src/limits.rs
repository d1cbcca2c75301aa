//! Limits of one policy call. Memory is summed over everything in the call's store, so that a component cannot multiply its share by having
//! many memories.

use std::time::Duration;

use wasmtime::ResourceLimiter;

/// Limits of one call. `config.default.toml` has the default and the explanation of every field.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of linear memory, in total.
    pub memory: usize,
    /// Table elements, in total.
    pub table_elements: usize,
    /// Fuel: units of work, about one for each instruction.
    pub fuel: u64,
    /// Additional fuel for each byte of the call's arguments.
    pub fuel_per_byte: u64,
    /// Deadline, a safety net behind the fuel. A call that has more fuel for its arguments has more time, too.
    pub deadline: Duration,
    /// Maximum number of codes and signatures that the call computes.
    pub key_operations: u32,
    /// Maximum number of lines of log.
    pub log_lines: u32,
    /// Maximum length of one line of log, in bytes.
    pub log_line_length: usize,
    /// Maximum number of headers that `encode` and `sign` may each add.
    pub added_headers: usize,
    /// Maximum size of a returned body, in bytes.
    pub answer_body: usize,
    /// Maximum size of what the server itself reads of a component, in bytes.
    pub embedded: usize,
}

/// Maximum number of table elements of a guest that is not large; a component of any default toolchain stays far below.
pub const TABLE_ELEMENTS: usize = 20_000;

/// Limits that differ for large guests. `config.default.toml` has the default and the explanation of every field.
#[derive(Clone, Debug)]
pub struct LargeLimits {
    /// Maximum size of a component, in bytes.
    pub component: usize,
    /// Memory in bytes; see [`Limits::memory`].
    pub memory: usize,
    /// Table elements; see [`Limits::table_elements`].
    pub table_elements: usize,
    /// Fuel; see [`Limits::fuel`].
    pub fuel: u64,
    /// Deadline; see [`Limits::deadline`].
    pub deadline: Duration,
}

impl LargeLimits {
    /// Returns the limits of a large guest's call, where those of other guests are `limits`.
    pub(super) fn over(&self, limits: &Limits) -> Limits {
        let Self { memory, table_elements, fuel, deadline, .. } = *self;
        Limits { memory, table_elements, fuel, deadline, ..limits.clone() }
    }
}

/// Divisor of the time for additional fuel: as much fuel again adds one tenth of the deadline.
const SLACK: u128 = 10;

impl Limits {
    /// Returns the limits of a call whose arguments have `bytes` bytes.
    pub(super) fn with_input(&self, bytes: usize) -> Self {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let fuel = self.fuel.saturating_add(self.fuel_per_byte.saturating_mul(bytes));
        let further = u128::from(fuel - self.fuel);
        let slack = u128::from(self.fuel).saturating_mul(SLACK).max(1);
        let nanos = self.deadline.as_nanos().saturating_mul(further) / slack;
        let deadline = self.deadline.saturating_add(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)));
        Self { fuel, deadline, ..self.clone() }
    }
}

/// Counter of the memory that the guest requests, which remembers a refusal.
#[derive(Debug)]
pub(super) struct Meter {
    memory_left: usize,
    elements_left: usize,
    /// Whether a request for memory was refused; the guest then ends in some trap.
    pub(super) refused: bool,
}

impl Meter {
    pub(super) fn new(limits: &Limits) -> Self {
        Self { memory_left: limits.memory, elements_left: limits.table_elements, refused: false }
    }

    /// Returns the bytes of linear memory that the guest was granted under `limits`.
    pub(super) fn memory(&self, limits: &Limits) -> usize {
        limits.memory.saturating_sub(self.memory_left)
    }

    fn take(left: &mut usize, refused: &mut bool, current: usize, desired: usize) -> bool {
        match left.checked_sub(desired.saturating_sub(current)) {
            Some(rest) => {
                *left = rest;
                true
            }
            None => {
                *refused = true;
                false
            }
        }
    }
}

impl ResourceLimiter for Meter {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(Self::take(&mut self.memory_left, &mut self.refused, current, desired))
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(Self::take(&mut self.elements_left, &mut self.refused, current, desired))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(fuel: u64, fuel_per_byte: u64, deadline: Duration) -> Limits {
        Limits {
            memory: 0,
            table_elements: 0,
            fuel,
            fuel_per_byte,
            deadline,
            key_operations: 0,
            log_lines: 0,
            log_line_length: 0,
            added_headers: 0,
            answer_body: 0,
            embedded: 0,
        }
    }

    #[test]
    fn fuel_and_time_grow_with_the_bytes_of_the_arguments() {
        let of = |bytes| {
            let limits = limits(1_000, 10, Duration::from_millis(50)).with_input(bytes);
            (limits.fuel, limits.deadline.as_millis())
        };
        assert_eq!((of(0), of(1), of(100)), ((1_000, 50), (1_010, 50), (2_000, 55)));
        let most = limits(u64::MAX, u64::MAX, Duration::from_secs(3)).with_input(usize::MAX);
        assert_eq!((most.fuel, most.deadline), (u64::MAX, Duration::from_secs(3)), "there is no more");
        assert!(limits(1, u64::MAX, Duration::MAX).with_input(1).deadline > Duration::from_secs(1 << 30));
    }
}
