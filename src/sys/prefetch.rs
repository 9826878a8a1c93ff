//! Asking the processor for a cache line before it is needed.

/// Starts loading the cache line in which `target` begins. A hint: it has no effect that a program
/// could observe, other than on time.
#[inline(always)]
pub fn read<T>(target: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch never faults, whatever the address, and this one is a live reference;
        // SSE is part of every x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(target).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = target;
}
