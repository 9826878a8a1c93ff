//! Which configuration is read, and what becomes of what was read: one answer for the start, a reload and
//! `xvs check`.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::origin::Origin;
use crate::config::{Config, Diagnostic, Parsed, Severity};

/// A configuration, and how it is taken.
#[derive(Clone, Debug)]
pub struct Source {
    /// Where it is.
    pub origin: Origin,
    /// Whether warnings refuse it as errors do.
    pub strict: bool,
    /// Which half of it counts.
    pub half: Half,
}

/// A half of a configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Half {
    /// All of it.
    #[default]
    Both,
    /// What elects: no virtual server (keepalived's `--vrrp`).
    Vrrp,
    /// What forwards: no VRRP instance (keepalived's `--check`).
    Servers,
}

impl Source {
    /// `file`, as this host reads it: all of it, and warnings are no reason to refuse it.
    pub fn of(file: PathBuf) -> Self {
        Self {
            origin: Origin::new(file),
            strict: false,
            half: Half::Both,
        }
    }

    /// The file.
    pub fn file(&self) -> &Path {
        self.origin.file()
    }

    /// Reads it. What does not count is not in the result; whether that may be used is another question, see
    /// [`Self::refusal`].
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(&self) -> io::Result<Parsed> {
        let mut parsed = self.origin.read()?;
        self.half.restrict(&mut parsed.config);
        Ok(parsed)
    }

    /// Why what was read must not be used, if so.
    pub fn refusal(&self, parsed: &Parsed) -> Option<String> {
        if parsed.has_errors() {
            return Some("the configuration has errors".to_owned());
        }
        if self.strict && has_warnings(&parsed.diagnostics) {
            return Some("the configuration has warnings, and --strict was asked for".to_owned());
        }
        parsed.config.is_useless().map(str::to_owned)
    }
}

impl Half {
    fn restrict(self, config: &mut Config) {
        match self {
            Self::Both => {}
            Self::Vrrp => config.virtual_servers.clear(),
            Self::Servers => config.vrrp_instances.clear(),
        }
    }
}

fn has_warnings(diagnostics: &[Diagnostic]) -> bool {
    let mut all = diagnostics.iter();
    all.any(|one| one.severity >= Severity::Warning)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    const VRRP: &str = "vrrp_instance V {\nstate BACKUP\ninterface eth0\nvirtual_router_id 5\n\
                        virtual_ipaddress {\n10.0.0.9\n}\n}\n";
    const SERVER: &str = "virtual_server 10.0.0.9 80 {\nlb_algo rr\nlb_kind DR\nprotocol TCP\n\
                          real_server 10.0.0.1 80 {\n}\n}\n";

    fn refusal(text: &str, change: impl FnOnce(&mut Source)) -> Option<String> {
        let mut source = Source::of("f".into());
        change(&mut source);
        let mut parsed = parse("f", text.as_bytes());
        source.half.restrict(&mut parsed.config);
        source.refusal(&parsed)
    }

    #[test]
    fn what_must_not_be_used_says_why() {
        let both = format!("{VRRP}{SERVER}");
        assert_eq!(refusal(&both, |_| ()), None);
        let errors = refusal("vrrp_instance V {\ninterface eth0\n}\n", |_| ());
        assert_eq!(errors.unwrap(), "the configuration has errors");
        let odd = format!("{both}global_defs {{\nlvs_id A\n}}\n");
        assert_eq!(refusal(&odd, |_| ()), None);
        let strict = refusal(&odd, |source| source.strict = true);
        assert!(strict.unwrap().contains("--strict"));
        assert_eq!(refusal(&both, |source| source.strict = true), None);
        assert!(refusal("", |_| ()).unwrap().contains("neither"));
    }

    #[test]
    fn the_other_half_is_left_out() {
        for (half, alone, other) in [(Half::Vrrp, VRRP, SERVER), (Half::Servers, SERVER, VRRP)] {
            assert_eq!(refusal(alone, |source| source.half = half), None);
            let nothing = refusal(other, |source| source.half = half);
            assert!(nothing.unwrap().contains("neither"), "{half:?}");
        }
    }
}
