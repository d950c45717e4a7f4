//! What was spent: time on the wall, time on a processor, allocations.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Counts what is allocated.
pub(crate) struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

#[expect(unsafe_code, reason = "an allocator cannot be written without it")]
// SAFETY: every call goes on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: see above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: see above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// What was spent so far.
#[derive(Clone, Copy)]
pub(crate) struct Spent {
    wall: Instant,
    processor: Duration,
    allocations: u64,
}

/// What so many pieces of work took, each.
#[derive(Clone, Copy)]
pub(crate) struct Each {
    /// Pieces in a second of the wall's clock.
    pub(crate) per_second: f64,
    /// Nanoseconds on a processor, of all threads: what other processes take is not in it.
    pub(crate) nanoseconds: f64,
    /// Allocations.
    pub(crate) allocations: f64,
}

impl Spent {
    pub(crate) fn now() -> Self {
        Self {
            wall: Instant::now(),
            processor: Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default(),
            allocations: ALLOCATIONS.load(Ordering::Relaxed),
        }
    }

    /// What was spent since on so many pieces.
    pub(crate) fn on(self, pieces: u64) -> Each {
        let (after, pieces) = (Self::now(), real(pieces));
        Each {
            per_second: pieces / self.wall.elapsed().as_secs_f64(),
            nanoseconds: after.processor.saturating_sub(self.processor).as_secs_f64() * 1e9 / pieces,
            allocations: real(after.allocations - self.allocations) / pieces,
        }
    }
}

/// A count as a number.
#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
pub(crate) fn real(count: u64) -> f64 {
    count as f64
}
