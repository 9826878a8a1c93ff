//! Numbers that nobody outside can guess.

use std::io;

/// A random number from the kernel's generator: what seeds the hash of flows, so that a client cannot
/// choose addresses that fall into one bucket. Waits until the generator is ready, which on a booted
/// system it is.
///
/// # Errors
/// What getrandom(2) reported; then there is no number to go on with.
pub fn seed() -> io::Result<u64> {
    let mut bytes = [0_u8; 8];
    loop {
        // SAFETY: `bytes` is writable for the length said and alive for the call.
        let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
        match usize::try_from(got) {
            Ok(got) if got == bytes.len() => return Ok(u64::from_ne_bytes(bytes)),
            // Up to 256 bytes come at once or not at all: this is a signal, and so is EINTR.
            Ok(_) => {}
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn seeds_differ_and_use_every_bit() {
        let seeds: HashSet<_> = (0..64).map(|_| seed().unwrap()).collect();
        assert_eq!(seeds.len(), 64);
        let (ones, zeros) = seeds.iter().fold((0, 0), |(a, b), s| (a | s, b | !s));
        assert_eq!((ones, zeros), (u64::MAX, u64::MAX));
    }
}
