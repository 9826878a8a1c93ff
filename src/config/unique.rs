//! Lists in which each name stands once, however many there are.

use std::collections::HashSet;

/// What has a name, in the order of the file.
#[derive(Debug)]
pub(super) struct Unique<T> {
    pub(super) list: Vec<T>,
    names: HashSet<String>,
}

impl<T> Default for Unique<T> {
    fn default() -> Self {
        Self {
            list: Vec::new(),
            names: HashSet::new(),
        }
    }
}

impl<T> Unique<T> {
    /// Adds what has this name. Whether it is new; otherwise it is dropped.
    pub(super) fn insert(&mut self, name: &str, value: T) -> bool {
        let new = self.names.insert(name.to_owned());
        if new {
            self.list.push(value);
        }
        new
    }
}
