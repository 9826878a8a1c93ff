//! `xvs check`, and keepalived's `--config-test`: whether a box would start with a configuration.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use serde::Serialize;

use super::{FAILED, USAGE, arguments::ConfigFile, fail, print, print_json, tell};
use crate::{
    config::{self, Diagnostic, Fate, Parsed, Severity},
    control::{
        host_check::{self, Finding},
        load::Source,
    },
};

/// Shown below the help.
pub(super) const EXIT_STATUS: &str = "\
Exit status:
  0  a box would start with it; there may be warnings
  1  it would not: there are errors, or warnings and --strict, or nothing is configured
  2  the command line is wrong, or a file cannot be read";

/// What is asked about a configuration.
#[derive(Debug, Args)]
pub(super) struct Check {
    #[command(flatten)]
    config: ConfigFile,
    /// Take warnings for errors, as `xvs run --strict` does
    #[arg(long)]
    strict: bool,
    /// Check this host, too: whether interfaces are there and usable, addresses are in one of their networks,
    /// scripts can be run, and their users exist
    #[arg(long)]
    on_this_host: bool,
    /// Print the configuration that counts: every default resolved, passwords masked
    #[arg(long)]
    effective: bool,
    /// Print what a reload would change if a box ran this other configuration, a line each
    #[arg(long, value_name = "OLD")]
    diff: Option<PathBuf>,
    /// Print everything as JSON
    #[arg(long)]
    json: bool,
    /// Print what a keyword means, its range and default, and what becomes of it; no file is read
    #[arg(long, value_name = "KEYWORD")]
    explain: Option<String>,
    /// Skip lines with another `@ID` in front than this one, or `@^ID` with this one
    #[arg(short = 'i', long, value_name = "ID")]
    config_id: Option<String>,
}

/// Answers it.
pub(super) fn check(options: &Check) -> ExitCode {
    if let Some(keyword) = &options.explain {
        return explain(keyword);
    }
    let mut source = Source::of(options.config.file.clone());
    source.strict = options.strict;
    if let Some(id) = &options.config_id {
        source.origin = source.origin.with_id(id.clone());
    }
    let mut report = match Report::new(&source) {
        Ok(report) => report,
        Err(message) => return fail(USAGE, &message),
    };
    if options.on_this_host {
        match host_check::check(&report.parsed.config) {
            Ok(found) => report.host = found,
            Err(message) => return fail(FAILED, &message),
        }
    }
    let changes = match options
        .diff
        .as_deref()
        .map(|old| changes(&source, old, &report))
    {
        None => None,
        Some(Ok(changes)) => Some(changes),
        Some(Err(message)) => return fail(USAGE, &message),
    };
    // What was understood of a broken file is not what counts.
    let shown = options.effective && !report.parsed.has_errors();
    let effective = shown.then(|| config::effective(&report.parsed.config));
    if options.json {
        let status = print_json(&report.json(changes, effective));
        return if status == ExitCode::SUCCESS {
            report.status()
        } else {
            status
        };
    }
    tell(&report.text());
    let changes = changes.map(|changes| match changes.len() {
        0 => "nothing is different\n".to_owned(),
        _ => changes.join("\n") + "\n",
    });
    for text in changes.iter().chain(&effective) {
        let status = print(text);
        if status != ExitCode::SUCCESS {
            return status;
        }
    }
    report.status()
}

/// Tests a configuration as keepalived does; what there is to say goes to `file`, or to standard error.
pub(super) fn test(source: &Source, file: Option<&Path>) -> ExitCode {
    let report = match Report::new(source) {
        Ok(report) => report,
        Err(message) => return fail(USAGE, &message),
    };
    match file {
        None => tell(&report.text()),
        Some(file) => {
            if let Err(error) = fs::write(file, report.text()) {
                return fail(USAGE, &format!("{}: {error}", file.display()));
            }
        }
    }
    report.status()
}

fn explain(keyword: &str) -> ExitCode {
    let lines = config::explain(keyword);
    if lines.is_empty() {
        return fail(FAILED, &format!("there is no keyword `{keyword}`"));
    }
    print(&(lines.join("\n") + "\n"))
}

/// What a reload from `old` would change; nothing if it would be refused.
fn changes(source: &Source, old: &Path, new: &Report<'_>) -> Result<Vec<String>, String> {
    let former = source.origin.clone().with_file(old.to_owned());
    let name = old.display();
    let former = former.read().map_err(|error| format!("{name}: {error}"))?;
    if former.has_errors() {
        tell(&former.report());
        return Err(format!("{name} has errors: no box can be running it"));
    }
    if new.refusal().is_some() {
        return Ok(Vec::new());
    }
    let diff = config::diff(&former.config, &new.parsed.config);
    Ok(diff.changes.iter().map(ToString::to_string).collect())
}

/// What there is to say about a configuration.
struct Report<'a> {
    source: &'a Source,
    parsed: Parsed,
    /// About this host.
    host: Vec<Finding>,
}

impl<'a> Report<'a> {
    fn new(source: &'a Source) -> Result<Self, String> {
        let parsed = source.read();
        let parsed = parsed.map_err(|error| format!("{}: {error}", source.file().display()))?;
        Ok(Self {
            source,
            parsed,
            host: Vec::new(),
        })
    }

    /// Why a box would not start with it, if so.
    fn refusal(&self) -> Option<String> {
        self.source.refusal(&self.parsed).or_else(|| {
            let worst = self.host.iter().map(|finding| finding.severity).max();
            match worst {
                Some(Severity::Error) => Some("this host lacks what it needs".to_owned()),
                Some(Severity::Warning) if self.source.strict => Some(
                    "there are warnings about this host, and --strict was asked for".to_owned(),
                ),
                _ => None,
            }
        })
    }

    fn status(&self) -> ExitCode {
        match self.refusal() {
            None => ExitCode::SUCCESS,
            Some(_) => ExitCode::from(FAILED),
        }
    }

    fn count(&self, severity: Severity) -> usize {
        let of_file = self.parsed.diagnostics.iter().map(|one| one.severity);
        let of_host = self.host.iter().map(|finding| finding.severity);
        of_file
            .chain(of_host)
            .filter(|one| *one == severity)
            .count()
    }

    /// How many statements come to this.
    fn fates(&self, fate: Fate) -> usize {
        let all = self.parsed.diagnostics.iter();
        all.filter(|one| one.fate == Some(fate)).count()
    }

    /// For people: each finding with its line, then those about the host, then the verdict.
    fn text(&self) -> String {
        let file = self.source.file().display();
        let mut text = self.parsed.report();
        for finding in &self.host {
            text += &format!("{file}: {finding}\n");
        }
        let fates = [
            (Fate::Unapplied, "not applied yet"),
            (Fate::Meaningless, "without meaning here"),
        ];
        let fates = fates.map(|(fate, name)| (self.fates(fate), name));
        let told: Vec<String> = fates
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, name)| format!("{count} {name}"))
            .collect();
        if !told.is_empty() {
            text += &format!("{file}: statements: {}\n", told.join(", "));
        }
        let mut counts = vec![
            counted(self.count(Severity::Error), "error"),
            counted(self.count(Severity::Warning), "warning"),
        ];
        match self.count(Severity::Deprecated) {
            0 => {}
            count => counts.push(format!("{count} deprecated")),
        }
        match self.count(Severity::Note) {
            0 => {}
            count => counts.push(counted(count, "note")),
        }
        let verdict = match self.refusal() {
            None => "would start".to_owned(),
            Some(why) => format!("would not start: {why}"),
        };
        text + &format!("{file}: {}; {verdict}\n", counts.join(", "))
    }

    fn json(&self, changes: Option<Vec<String>>, effective: Option<String>) -> Json<'_> {
        Json {
            file: self.source.file().display().to_string(),
            would_start: self.refusal().is_none(),
            reason: self.refusal(),
            errors: self.count(Severity::Error),
            warnings: self.count(Severity::Warning),
            deprecated: self.count(Severity::Deprecated),
            notes: self.count(Severity::Note),
            not_applied: self.fates(Fate::Unapplied),
            without_meaning: self.fates(Fate::Meaningless),
            diagnostics: self.parsed.diagnostics.iter().map(Place::of).collect(),
            host: self.host.iter().map(About::of).collect(),
            changes,
            effective,
        }
    }
}

fn counted(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

/// For programs. Fields are only ever added.
#[derive(Serialize)]
struct Json<'a> {
    file: String,
    would_start: bool,
    reason: Option<String>,
    errors: usize,
    warnings: usize,
    deprecated: usize,
    notes: usize,
    /// Statements that this version does not apply yet.
    not_applied: usize,
    /// Statements that mean nothing here.
    without_meaning: usize,
    diagnostics: Vec<Place<'a>>,
    host: Vec<About<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    changes: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    effective: Option<String>,
}

/// A finding about the file.
#[derive(Serialize)]
struct Place<'a> {
    severity: String,
    file: &'a str,
    line: u32,
    column: u32,
    length: u32,
    message: &'a str,
    hint: Option<&'a str>,
}

impl<'a> Place<'a> {
    fn of(it: &'a Diagnostic) -> Self {
        Self {
            severity: it.severity.to_string(),
            file: &it.file,
            line: it.line,
            column: it.column,
            length: it.length,
            message: &it.message,
            hint: it.hint.as_deref(),
        }
    }
}

/// A finding about this host.
#[derive(Serialize)]
struct About<'a> {
    severity: String,
    message: &'a str,
}

impl<'a> About<'a> {
    fn of(it: &'a Finding) -> Self {
        Self {
            severity: it.severity.to_string(),
            message: &it.message,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    const GOOD: &str = "virtual_server 10.0.0.9 80 {\nlb_algo rr\nlb_kind DR\nprotocol TCP\n\
                        real_server 10.0.0.1 80 {\n}\n}\n";

    fn report<'a>(source: &'a Source, text: &str, host: &[Severity]) -> Report<'a> {
        let finding = |severity: &Severity| Finding {
            severity: *severity,
            message: "eth0".into(),
        };
        Report {
            source,
            parsed: parse("f", text.as_bytes()),
            host: host.iter().map(finding).collect(),
        }
    }

    fn last_line(source: &Source, text: &str, host: &[Severity]) -> String {
        let text = report(source, text, host).text();
        text.lines().last().unwrap().to_owned()
    }

    #[test]
    fn the_last_line_is_the_verdict() {
        let source = Source::of("f".into());
        let strict = Source {
            strict: true,
            ..source.clone()
        };
        let odd = format!("{GOOD}global_defs {{\nlvs_id A\n}}\n");
        for (source, text, host, line) in [
            (
                &source,
                GOOD,
                &[][..],
                "f: 0 errors, 0 warnings; would start",
            ),
            (&source, &odd, &[], "f: 0 errors, 1 warning; would start"),
            (
                &source,
                GOOD,
                &[Severity::Note, Severity::Warning],
                "f: 0 errors, 1 warning, 1 note; would start",
            ),
            (
                &strict,
                &odd,
                &[],
                "f: 0 errors, 1 warning; would not start: the configuration has warnings, and --strict was asked for",
            ),
            (
                &strict,
                GOOD,
                &[Severity::Warning],
                "f: 0 errors, 1 warning; would not start: there are warnings about this host, and --strict was asked \
                 for",
            ),
            (
                &source,
                GOOD,
                &[Severity::Error],
                "f: 1 error, 0 warnings; would not start: this host lacks what it needs",
            ),
            (
                &source,
                "vrrp_instance V {\ninterface eth0\n}\n",
                &[],
                "f: 1 error, 1 warning; would not start: the configuration has errors",
            ),
        ] {
            assert_eq!(last_line(source, text, host), line);
        }
    }

    #[test]
    fn statements_are_counted_by_what_becomes_of_them() {
        let source = Source::of("f".into());
        let text =
            format!("{GOOD}global_defs {{\nlvs_id A\nsmtp_server 10.0.0.1\nsmtp_helo_name a\n}}\n");
        let report = report(&source, &text, &[]);
        let said = report.text();
        let line = "f: statements: 1 not applied yet, 1 without meaning here";
        assert!(said.lines().any(|found| found == line), "{said}");
        let json = serde_json::to_value(report.json(None, None)).unwrap();
        assert_eq!(
            (&json["not_applied"], &json["without_meaning"]),
            (&1.into(), &1.into())
        );
    }
}
