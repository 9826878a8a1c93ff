//! One snippet a rule, with everything that is said about it: `testdata/snippets`.
//!
//! ```text
//! === warning, instance: what the rule is
//! priority 300
//! ---
//! 2:10: warning: …
//! ```
//!
//! The word in front is the severity of the worst finding (`clean` for none) and is written by hand; what stands behind
//! `---` is written by `XVS_BLESS=1 cargo test --lib snippets`, to be looked through before it is committed. The second
//! word is where the snippet stands: in an instance, a virtual server or a real server that is complete without it, in a
//! `TCP_CHECK`, or alone in a file.

use std::{env, fs, path::Path};

use super::{super::parse, instance, server};

/// A snippet and what is expected of it.
struct Case {
    severity: String,
    place: String,
    title: String,
    snippet: String,
    expected: String,
}

impl Case {
    fn read(text: &str) -> Self {
        let (head, body) = text.split_once('\n').expect("a title is a line");
        let (kind, title) = head.split_once(": ").expect("a title has a kind");
        let (severity, place) = kind.split_once(", ").unwrap_or((kind, "file"));
        let (snippet, expected) = body.split_once("---\n").unwrap_or((body, ""));
        Self {
            severity: severity.to_owned(),
            place: place.to_owned(),
            title: title.to_owned(),
            snippet: snippet.to_owned(),
            expected: expected.to_owned(),
        }
    }

    /// The file that the snippet is part of.
    fn text(&self) -> String {
        let snippet = self.snippet.trim_end();
        match &*self.place {
            "file" => self.snippet.clone(),
            "instance" => instance(snippet),
            "server" => server(snippet, ""),
            "real" => server("", snippet),
            "check" => server("", &format!("TCP_CHECK {{\n{snippet}\n}}")),
            other => panic!("{}: nothing is called {other}", self.title),
        }
    }

    /// The severity of the worst finding, and the report without the name of the file.
    fn run(&self) -> (String, String) {
        let parsed = parse("f", self.text().as_bytes());
        let severities = parsed.diagnostics.iter().map(|found| found.severity);
        let worst = severities.max();
        let worst = worst.map_or_else(|| "clean".to_owned(), |worst| worst.to_string());
        let lines = parsed.report();
        let lines = lines
            .lines()
            .map(|line| line.strip_prefix("f:").unwrap_or(line));
        (worst, lines.map(|line| format!("{line}\n")).collect())
    }

    fn written(&self, report: &str) -> String {
        let Self {
            severity,
            place,
            title,
            snippet,
            ..
        } = self;
        let place = match &**place {
            "file" => String::new(),
            place => format!(", {place}"),
        };
        let report = match report {
            "" => String::new(),
            report => format!("---\n{report}"),
        };
        format!("=== {severity}{place}: {title}\n{snippet}{report}")
    }
}

#[test]
fn every_snippet_is_read_as_its_rule_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/testdata/snippets");
    let mut wrong = Vec::new();
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let mut parts = text.split("=== ");
        let mut written = parts.next().unwrap().to_owned();
        for part in parts {
            let case = Case::read(part);
            let (severity, report) = case.run();
            if severity != case.severity {
                let title = &case.title;
                let expected = &case.severity;
                wrong.push(format!("{title}: {severity}, not {expected}\n{report}"));
            } else if report != case.expected && env::var_os("XVS_BLESS").is_none() {
                let expected = &case.expected;
                wrong.push(format!("{}:\n{report}instead of\n{expected}", case.title));
            }
            written += &case.written(&report);
            count += 1;
        }
        if env::var_os("XVS_BLESS").is_some() {
            fs::write(&path, written).unwrap();
        }
    }
    assert!(count > 100, "{count}");
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
