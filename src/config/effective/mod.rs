//! The configuration that counts, written so that it can be read again: every default resolved,
//! nothing inherited, the password masked.

mod checker;
mod definitions;
mod global;
mod lvs;
mod vrrp;

use std::{
    collections::HashSet,
    fmt::{self, Display, Formatter, Write},
};

use super::model::{Config, HmacKey, Passphrase, Password, Plain, Script, Secs};

/// Whether the writer shows passwords.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Secrets {
    Masked,
    #[cfg(test)]
    Shown,
}

impl Secrets {
    /// The password of a key as it is written.
    fn passphrase(self, password: &Passphrase) -> String {
        match (self, password) {
            (Self::Masked, _) => "****".to_owned(),
            #[cfg(test)]
            (Self::Shown, password) => word(password.text()),
        }
    }

    /// A password as it is written; masked, all look alike whatever their length.
    fn shown(self, password: &Password) -> String {
        match (self, password) {
            (Self::Masked, _) => "****".to_owned(),
            #[cfg(test)]
            (Self::Shown, password) => {
                let text = String::from_utf8_lossy(password.bytes());
                word(text.trim_end_matches('\0'))
            }
        }
    }

    /// A key as it is written.
    fn key(self, key: &HmacKey) -> String {
        match (self, key) {
            (Self::Masked, _) => "****".to_owned(),
            #[cfg(test)]
            (Self::Shown, key) => word(&key.0),
        }
    }
}

/// The effective configuration in keepalived's syntax. Reading it gives the same [`Config`],
/// but for the password, which is masked.
pub fn effective(config: &Config) -> String {
    written(config, Secrets::Masked)
}

impl Display for Config {
    /// As [`effective()`].
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&effective(self))
    }
}

/// The configuration with or without its passwords.
pub(super) fn written(config: &Config, secrets: Secrets) -> String {
    let mut out = Out {
        text: String::new(),
        depth: 0,
        secrets,
    };
    for (keyword, value) in config.process.plain() {
        out.plain(keyword, value.as_ref());
    }
    out.global(&config.global, &config.timeouts);
    out.settings(&config.settings, &config.timeouts);
    out.definitions(config);
    out.ssl(&config.ssl);
    for instance in &config.vrrp_instances {
        out.instance(instance);
    }
    let mut groups = HashSet::new();
    for server in &config.virtual_servers {
        if let Some(group) = server.group.as_ref().filter(|name| groups.insert(*name)) {
            out.group(group, &server.matches);
        }
        out.server(server);
    }
    out.text
}

pub(super) struct Out {
    text: String,
    depth: usize,
    secrets: Secrets,
}

/// A word as the lexer reads it back: quoted where it would not survive bare.
fn word(text: &str) -> String {
    let bare = |c: char| !c.is_whitespace() && !matches!(c, '#' | '!' | '{' | '}' | '\\' | '$');
    let directive = text.starts_with(['@', '~']) || text.starts_with("include");
    if !text.is_empty() && !directive && text.chars().all(bare) {
        text.to_owned()
    } else {
        format!("\"{text}\"")
    }
}

/// A word as the script rule reads it back. The quote itself is written as an escape, because
/// the search for comments knows no backslash within quotes.
fn script_word(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\x22"),
            '\\' => quoted.push_str("\\\\"),
            c if c.is_ascii_control() => {
                // Writing to a String cannot fail.
                let _ = write!(quoted, "\\x{:02x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// A command with its user and group, of which no bare word could hold a quote.
fn script(script: &Script) -> String {
    let Script {
        command,
        user,
        group,
    } = script;
    let words = std::iter::once(command).chain(user).chain(group);
    let words: Vec<String> = words.map(|text| script_word(text)).collect();
    words.join(" ")
}

/// A plain value as it is written behind its keyword.
pub(super) fn plain(value: &Plain<'_>) -> String {
    match value {
        Plain::Flag => String::new(),
        Plain::Boolean(true) => "yes".to_owned(),
        Plain::Boolean(false) => "no".to_owned(),
        Plain::Number(number) => number.to_string(),
        Plain::Time(time) => Secs(*time).to_string(),
        Plain::Texts(texts) => {
            let words: Vec<String> = texts.iter().map(|text| word(text)).collect();
            words.join(" ")
        }
        Plain::Script(value) => script(value),
        Plain::Words(words) => words.clone(),
    }
}

/// CPUs in rising order as the kernel lists them: `0,2-5`.
struct CpuList<'a>(&'a [u16]);

impl Display for CpuList<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let next_to = |a: &u16, b: &u16| a.checked_add(1) == Some(*b);
        for (number, run) in self.0.chunk_by(next_to).enumerate() {
            let comma = if number == 0 { "" } else { "," };
            match run {
                [first, .., last] => write!(f, "{comma}{first}-{last}")?,
                run => write!(f, "{comma}{}", run[0])?,
            }
        }
        Ok(())
    }
}

impl Out {
    fn line(&mut self, line: impl Display) {
        let indent = " ".repeat(4 * self.depth);
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{indent}{line}");
    }

    fn flag(&mut self, set: bool, keyword: &str) {
        if set {
            self.line(keyword);
        }
    }

    /// A keyword with one plain value, where it has one.
    fn plain(&mut self, keyword: &str, value: Option<&Plain<'_>>) {
        let Some(value) = value else { return };
        let value = plain(value);
        self.line(format!("{keyword} {value}").trim_end());
    }

    fn open(&mut self, head: impl Display) {
        if self.depth == 0 && !self.text.is_empty() {
            self.text.push('\n');
        }
        self.line(format!("{head} {{"));
        self.depth += 1;
    }

    fn close(&mut self) {
        self.depth -= 1;
        self.line("}");
    }
}
