//! A fuzzer over the reading of configurations, with files that include one another. `scripts/fuzz` builds and runs
//! it.
//!
//! An input is the configuration and up to three files, `a` to `c`, apart by NUL bytes. Nothing may panic or take
//! long; what is read without errors is written and read again, to the same model.

#![no_main]

use libfuzzer_sys::fuzz_target;
use xvs::config::{self, Host, Request, Unreadable};

/// The files of an input.
struct Desk<'a> {
    files: Vec<&'a [u8]>,
}

impl Host for Desk<'_> {
    fn matching(&self, pattern: &str) -> Vec<String> {
        let names = ["/f/a", "/f/b", "/f/c"];
        let wild = pattern.contains('*');
        let found = names.iter().zip(&self.files).map(|(name, _)| *name);
        let found = found.filter(|name| wild || *name == pattern);
        found.map(str::to_owned).collect()
    }

    fn read(&self, path: &str) -> Result<Vec<u8>, Unreadable> {
        let index = path.bytes().last().map(|last| usize::from(last - b'a'));
        let file = index.and_then(|index| self.files.get(index));
        file.map(|text| text.to_vec()).ok_or(Unreadable::NoFile)
    }

    fn variable(&self, name: &str) -> Option<String> {
        (name == "X").then(|| "x $X".to_owned())
    }
}

fuzz_target!(|data: &[u8]| {
    let mut parts = data.split(|byte| *byte == 0);
    let text = parts.next().unwrap_or_default();
    let host = Desk {
        files: parts.take(3).collect(),
    };
    let parsed = config::read(&Request {
        file: "/f/f",
        folder: "/f",
        text,
        id: "x",
        seed: 1,
        all_files: false,
        host: &host,
    });
    assert!(parsed.report().len() < 10 << 20);
    let shown = config::effective(&parsed.config);
    let has_passwords = shown.contains("****");
    if !parsed.has_errors() && !has_passwords {
        let again = config::parse("effective", shown.as_bytes());
        assert_eq!(again.config, parsed.config, "{shown}\n{}", again.report());
    }
});
