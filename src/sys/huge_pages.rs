//! Huge pages: fewer misses of the TLB where a table or the frames are larger than it reaches.

use std::fs;

/// Whether the kernel has huge pages free for `bytes`, which it can give only by whole pages. They
/// are there when the administrator set some aside (`vm.nr_hugepages`).
pub fn are_free_for(bytes: u64) -> bool {
    fs::read_to_string("/proc/meminfo").is_ok_and(|text| fits(&text, bytes))
}

fn fits(meminfo: &str, bytes: u64) -> bool {
    let number = |name: &str| {
        let mut lines = meminfo.lines().map(|line| line.split_ascii_whitespace());
        let mut words = lines.find(|words| words.clone().next() == Some(name))?;
        words.nth(1)?.parse::<u64>().ok()
    };
    let (Some(free), Some(size_kb)) = (number("HugePages_Free:"), number("Hugepagesize:")) else {
        return false;
    };
    let reserved = number("HugePages_Rsvd:").unwrap_or(0);
    let size = size_kb.saturating_mul(1024);
    size > 0 && bytes.is_multiple_of(size) && free.saturating_sub(reserved) >= bytes / size
}

/// Where the kernel says when it gives transparent huge pages.
const TRANSPARENT: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

/// Backs `memory` by huge pages where the kernel can (transparent huge pages): what was written to at once
/// where it can collapse what is there (since 6.1), up to a second a gigabyte, or when it gets round to it;
/// the rest when it is. Whether the kernel is to do so; if not, all works the same.
pub fn back<T>(memory: &[T]) -> bool {
    /// What transparent huge pages are of on every 64-bit machine that xvs runs on, but those with base
    /// pages of 64 KiB, where the kernel refuses a range that is no multiple of its own.
    const PAGE: usize = 2 << 20;
    let start = memory.as_ptr().addr().next_multiple_of(PAGE);
    let end = (memory.as_ptr().addr() + size_of_val(memory)) / PAGE * PAGE;
    if start >= end {
        return false;
    }
    let start_at = memory.as_ptr().with_addr(start).cast_mut();
    let advise = |advice| {
        // SAFETY: the pages from `start` to `end` are all within `memory`, and neither advice changes its
        // content or protection.
        unsafe { libc::madvise(start_at.cast(), end - start, advice) == 0 }
    };
    let taken = advise(libc::MADV_HUGEPAGE);
    // Fails where nothing was written to yet: nothing is to be collapsed there.
    advise(libc::MADV_COLLAPSE);
    taken && fs::read_to_string(TRANSPARENT).is_ok_and(|text| !text.contains("[never]"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_pages_that_nobody_reserved_count() {
        let text = "HugePages_Total:      10\nHugePages_Free:        5\nHugePages_Rsvd:        1\n\
                    Hugepagesize:       2048 kB\n";
        let page = 2 << 20;
        assert!(fits(text, 4 * page));
        assert!(!fits(text, 5 * page));
        assert!(!fits(text, page + 2048));
        assert!(!fits("MemTotal: 1 kB\n", page));
        assert!(!fits("", 0));
    }

    #[test]
    fn backing_changes_nothing_and_little_memory_has_no_whole_page() {
        let memory = vec![7_u64; 1 << 20];
        let backed = back(&memory);
        assert!(memory.iter().all(|word| *word == 7));
        assert!(!backed || fs::exists(TRANSPARENT).unwrap());
        assert!(!back(&[1_u8; 100]) && !back::<u64>(&[]));
    }
}
