//! A memory allocator for an instance that lives for one call: it hands out memory and takes almost nothing back.
//!
//! Invariants: the initial memory (a static arena) is used up before the linear memory grows, since growing costs the host two
//! system calls and most calls need none; the block that was handed out last can grow, shrink and be freed in place, which is
//! what a growing `Vec` or `String` does; every other block stays until the instance is dropped.
//!
//! It fails as every allocator does: no memory left means a null pointer, which Rust turns into a trap.

use std::alloc::Layout;

/// A stretch of free addresses `next..end`, and where the block that was taken last begins.
///
/// Pure arithmetic: it never touches the memory that the addresses stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bump {
    next: usize,
    end: usize,
    last: Option<usize>,
}

impl Bump {
    /// A region of `start..end`.
    pub(crate) const fn new(start: usize, end: usize) -> Self {
        Self { next: start, end, last: None }
    }

    /// Takes a block, or nothing if it does not fit.
    pub(crate) fn take(&mut self, layout: Layout) -> Option<usize> {
        let start = self.next.checked_next_multiple_of(layout.align())?;
        let next = start.checked_add(layout.size())?;
        if next > self.end {
            return None;
        }
        self.next = next;
        self.last = Some(start);
        Some(start)
    }

    /// Makes the block at `address` `size` bytes long without moving it. Only the last block can, and only within the region.
    pub(crate) fn resize(&mut self, address: usize, size: usize) -> bool {
        match address.checked_add(size) {
            Some(next) if self.last == Some(address) && next <= self.end => {
                self.next = next;
                true
            }
            _ => false,
        }
    }

    /// Gives the block at `address` back if it is the last one.
    pub(crate) fn release(&mut self, address: usize) {
        if self.last == Some(address) {
            self.next = address;
            self.last = None;
        }
    }

    /// Adds `start..end`, fresh from the host: behind the region if they touch, else in its place, and what was left is lost.
    pub(crate) fn extend(&mut self, start: usize, end: usize) {
        if self.end == start {
            self.end = end;
        } else {
            *self = Self::new(start, end);
        }
    }

    /// How many bytes the region lacks for the block at `address` to be `size` bytes long in place; none if it is not the last.
    pub(crate) fn shortfall(&self, address: usize, size: usize) -> Option<usize> {
        if self.last != Some(address) {
            return None;
        }
        Some(address.checked_add(size)?.saturating_sub(self.end))
    }

    /// Whether the region ends at `address`.
    pub(crate) fn ends_at(&self, address: usize) -> bool {
        self.end == address
    }
}

#[cfg(all(target_arch = "wasm32", feature = "allocator"))]
mod global {
    use std::alloc::{GlobalAlloc, Layout};
    use std::cell::{RefCell, UnsafeCell};
    use std::ptr;

    use super::Bump;

    /// A page of linear memory, in bytes.
    const PAGE: usize = 65_536;

    /// The least that memory grows by, in pages: growing is slow.
    const GROWTH_PAGES: usize = 4;

    /// How much memory a guest has to give from the start, in bytes: a call with a payload of 16 KiB fits. More would cost each call, since the
    /// host walks through all pages of an instance, touched or not, before it is used again.
    const ARENA: usize = 100 * 1024;

    #[repr(align(16))]
    struct Arena(UnsafeCell<[u8; ARENA]>);

    struct Allocator(RefCell<Option<Bump>>);

    #[expect(unsafe_code, reason = "wasm32-unknown-unknown has one thread")]
    unsafe impl Sync for Arena {}
    #[expect(unsafe_code, reason = "wasm32-unknown-unknown has one thread")]
    unsafe impl Sync for Allocator {}

    static MEMORY: Arena = Arena(UnsafeCell::new([0; ARENA]));

    #[global_allocator]
    static ALLOCATOR: Allocator = Allocator(RefCell::new(None));

    impl Allocator {
        fn with<T>(&self, action: impl FnOnce(&mut Bump) -> T) -> T {
            let mut state = self.0.borrow_mut();
            let bump = state.get_or_insert_with(|| {
                let start = MEMORY.0.get() as usize;
                Bump::new(start, start + ARENA)
            });
            action(bump)
        }
    }

    /// Asks the host for at least `bytes` more and adds them to the region.
    fn grow(bump: &mut Bump, bytes: usize) -> bool {
        let needed = bytes.div_ceil(PAGE);
        // Near the host's limit a whole step may be too much while the need itself still fits.
        [needed.max(GROWTH_PAGES), needed].into_iter().any(|pages| {
            let before = core::arch::wasm32::memory_grow::<0>(pages);
            if before == usize::MAX {
                return false;
            }
            let start = before * PAGE;
            bump.extend(start, start.saturating_add(pages * PAGE));
            true
        })
    }

    /// Grows the memory so that the last block can be `size` bytes long where it is; only if the region ends where memory does.
    fn grow_in_place(bump: &mut Bump, address: usize, size: usize) -> bool {
        let Some(bytes) = bump.shortfall(address, size) else { return false };
        bump.ends_at(core::arch::wasm32::memory_size::<0>() * PAGE) && grow(bump, bytes) && bump.resize(address, size)
    }

    fn take(bump: &mut Bump, layout: Layout) -> *mut u8 {
        if let Some(address) = bump.take(layout) {
            return address as *mut u8;
        }
        let room = layout.size().saturating_add(layout.align());
        if !grow(bump, room) {
            return ptr::null_mut();
        }
        bump.take(layout).map_or(ptr::null_mut(), |address| address as *mut u8)
    }

    #[expect(
        unsafe_code,
        reason = "the trait is unsafe; blocks are disjoint because the region only moves forward past them"
    )]
    unsafe impl GlobalAlloc for Allocator {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            self.with(|bump| take(bump, layout))
        }

        unsafe fn dealloc(&self, block: *mut u8, _layout: Layout) {
            self.with(|bump| bump.release(block as usize));
        }

        unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
            self.with(|bump| {
                let address = block as usize;
                if bump.resize(address, size) || size <= layout.size() || grow_in_place(bump, address, size) {
                    return block;
                }
                // SAFETY: the caller guarantees that `size`, rounded up to the alignment, does not overflow.
                let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
                let moved = take(bump, wanted);
                if !moved.is_null() {
                    // SAFETY: the new block was just taken behind the old one, so both are valid and they do not overlap.
                    unsafe { ptr::copy_nonoverlapping(block, moved, layout.size()) };
                }
                moved
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::alloc::Layout;

    use proptest::prelude::*;

    use super::Bump;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).expect("a valid layout")
    }

    #[test]
    fn blocks_follow_one_another_and_are_aligned() {
        let mut bump = Bump::new(1_001, 2_000);
        assert_eq!(bump.take(layout(3, 1)), Some(1_001));
        assert_eq!(bump.take(layout(8, 8)), Some(1_008));
        assert_eq!(bump.take(layout(1, 16)), Some(1_024));
    }

    #[test]
    fn what_does_not_fit_is_refused_and_changes_nothing() {
        let mut bump = Bump::new(16, 32);
        let before = bump.clone();
        assert_eq!(bump.take(layout(17, 1)), None);
        assert_eq!(bump.take(layout(isize::MAX as usize, 1)), None);
        assert_eq!(bump, before);
        assert_eq!(bump.take(layout(16, 16)), Some(16));
    }

    #[test]
    fn addresses_do_not_overflow() {
        let mut bump = Bump::new(usize::MAX - 8, usize::MAX);
        assert_eq!(bump.take(layout(1, 16)), None);
        assert_eq!(bump.take(layout(100, 1)), None);
        assert_eq!(bump.shortfall(usize::MAX - 8, 100), None);
    }

    #[test]
    fn only_the_last_block_grows_shrinks_and_is_freed() {
        let mut bump = Bump::new(0, 100);
        let first = bump.take(layout(10, 1)).expect("room");
        let last = bump.take(layout(10, 1)).expect("room");
        assert!(!bump.resize(first, 11));
        bump.release(first);
        assert!(bump.resize(last, 90));
        assert!(!bump.resize(last, 91));
        assert_eq!(bump.shortfall(last, 91), Some(1));
        assert_eq!(bump.shortfall(first, 91), None);
        assert!(bump.resize(last, 5));
        assert_eq!(bump.take(layout(1, 1)), Some(15));
        bump.release(15);
        assert_eq!(bump.take(layout(2, 1)), Some(15));
    }

    #[test]
    fn memory_from_the_host_continues_the_region_or_replaces_it() {
        let mut bump = Bump::new(0, 100);
        let block = bump.take(layout(90, 1)).expect("room");
        bump.extend(100, 200);
        assert!(bump.ends_at(200) && bump.resize(block, 150));
        bump.extend(1_000, 1_100);
        assert!(!bump.resize(block, 151));
        assert_eq!(bump.take(layout(100, 1)), Some(1_000));
    }

    proptest! {
        #[test]
        fn live_blocks_never_overlap(steps in proptest::collection::vec((0usize..64, 0u32..5, 0u8..3), 1..80)) {
            let mut bump = Bump::new(1_003, 3_000);
            let mut live: Vec<(usize, usize)> = Vec::new();
            for (size, align, action) in steps {
                match (action, live.last().copied()) {
                    (1, Some((address, _))) if bump.resize(address, size) => {
                        live.pop();
                        live.push((address, size));
                    }
                    (2, Some((address, _))) => {
                        live.pop();
                        bump.release(address);
                    }
                    _ => {
                        if let Some(address) = bump.take(layout(size, 1 << align)) {
                            prop_assert_eq!(address % (1 << align), 0);
                            live.push((address, size));
                        }
                    }
                }
                for pair in live.windows(2) {
                    prop_assert!(pair[0].0 + pair[0].1 <= pair[1].0);
                }
                prop_assert!(live.iter().all(|(address, size)| *address >= 1_003 && address + size <= 3_000));
            }
        }
    }
}
