//! Memory that stays where it is.

use std::{fs, hint::black_box};

use xvs::sys::scheduling::keep_in_memory;

/// As much as the tables of a large box have room for, in bytes.
const ROOM: usize = 256 << 20;

/// A number of kilobytes in this process's status.
fn kilobytes(name: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = line.unwrap().trim().strip_suffix(" kB");
    number.unwrap().parse().unwrap()
}

pub(crate) fn what_is_not_used_is_not_locked() {
    let before = kilobytes("VmRSS");
    keep_in_memory(true).unwrap();
    let mut room = black_box(vec![0_u8; ROOM]);
    assert!(kilobytes("VmLck") >= ROOM >> 10);
    let grown = kilobytes("VmRSS") - before;
    assert!(grown < ROOM >> 13, "{grown} kB more are in memory");
    room.fill(1);
    assert!(black_box(room).iter().all(|byte| *byte == 1));
    keep_in_memory(false).unwrap();
    assert_eq!(kilobytes("VmLck"), 0);
}
