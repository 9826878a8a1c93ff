//! Checkers, and the `SSL` block.

use super::{Out, Secs, script, script_word, word};
use crate::config::model::{
    CheckKind, Checker, Connection, HttpCheck, HttpUrl, MiscCheck, PageRegex, Ssl, StatusRange,
    UdpCheck,
};

/// Several values on one line.
fn list<T>(all: &[T], show: impl Fn(&T) -> String) -> String {
    all.iter().map(show).collect::<Vec<_>>().join(" ")
}

impl Out {
    pub(super) fn ssl(&mut self, ssl: &Ssl) {
        let Ssl {
            password,
            ca,
            certificate,
            key,
        } = ssl;
        if *ssl == Ssl::default() {
            return;
        }
        self.open("SSL");
        if let Some(password) = password {
            let password = self.secrets.passphrase(password);
            self.line(format!("password {password}"));
        }
        for (keyword, file) in [("ca", ca), ("certificate", certificate), ("key", key)] {
            self.said(keyword, file.as_deref());
        }
        self.close();
    }

    /// A word, if there is one.
    pub(super) fn said(&mut self, keyword: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.line(format!("{keyword} {}", word(text)));
        }
    }

    pub(super) fn checker(&mut self, checker: &Checker) {
        let Checker {
            kind,
            retry,
            delay_before_retry,
            warmup,
            delay_loop,
            alpha,
            log_all_failures,
        } = checker;
        self.open(kind.keyword());
        if let Some(connection) = kind.connection() {
            self.connection(connection);
        }
        match kind {
            CheckKind::Tcp(_) | CheckKind::Ping(_) => {}
            CheckKind::Http(check) => self.http(check),
            CheckKind::Smtp(check) => self.said("helo_name", Some(&check.helo_name)),
            CheckKind::Dns(check) => {
                self.line(format!("type {}", check.record.name()));
                self.said("name", Some(&check.name));
            }
            CheckKind::Misc(check) => self.misc(check),
            CheckKind::Udp(check) => self.udp(check),
            CheckKind::Bfd { name } => {
                self.said("name", Some(name));
                self.line(if *alpha { "alpha on" } else { "alpha off" });
                return self.close();
            }
            CheckKind::File(check) => {
                self.said("track_file", Some(&check.track_file));
                if let Some(weight) = check.weight {
                    let reverse = if weight.reverse { " reverse" } else { "" };
                    self.line(format!("weight {}{reverse}", weight.weight));
                }
                return self.close();
            }
        }
        self.line(format!("retry {retry}"));
        self.line(format!("delay_before_retry {}", Secs(*delay_before_retry)));
        if let Some(warmup) = warmup {
            self.line(format!("warmup {}", Secs(*warmup)));
        }
        self.line(format!("delay_loop {}", Secs(*delay_loop)));
        self.line(if *alpha { "alpha on" } else { "alpha off" });
        self.flag(*log_all_failures, "log_all_failures");
        self.close();
    }

    fn connection(&mut self, connection: &Connection) {
        let Connection {
            to,
            bindto,
            bind_port,
            bind_if,
            mark,
            timeout,
        } = connection;
        self.line(format!("connect_ip {}", to.addr));
        // A check without a port says none: 0 cannot be said.
        if to.port != 0 {
            self.line(format!("connect_port {}", to.port));
        }
        if let Some(addr) = bindto {
            self.line(format!("bindto {addr}"));
        }
        if *bind_port != 0 {
            self.line(format!("bind_port {bind_port}"));
        }
        self.said("bind_if", bind_if.as_deref());
        if *mark != 0 {
            self.line(format!("fwmark {mark}"));
        }
        self.line(format!("connect_timeout {}", Secs(*timeout)));
    }

    fn http(&mut self, check: &HttpCheck) {
        self.said("virtualhost", check.virtualhost.as_deref());
        self.line(format!("http_protocol {}", check.version.name()));
        if let Some(tls) = &check.tls {
            self.flag(tls.enable_sni, "enable_sni");
            self.said("sni_name", tls.sni_name.as_deref());
        }
        self.flag(check.fast_recovery, "fast_recovery");
        for url in &check.urls {
            self.url(url);
        }
    }

    fn url(&mut self, url: &HttpUrl) {
        self.open("url");
        self.said("path", Some(&url.path));
        if let Some(digest) = url.digest {
            self.line(format!("digest {:032x}", u128::from_be_bytes(digest)));
        }
        let codes = list(&url.status_codes, StatusRange::to_string);
        self.line(format!("status_code {codes}"));
        self.said("virtualhost", url.virtualhost.as_deref());
        if let Some(regex) = &url.regex {
            self.regex(regex);
        }
        self.flag(url.tls_compliant, "tls_compliant");
        self.close();
    }

    fn regex(&mut self, regex: &PageRegex) {
        self.line(format!("regex {}", script_word(&regex.pattern)));
        self.flag(regex.no_match, "regex_no_match");
        if !regex.options.is_empty() {
            let options = list(&regex.options, |option| option.name().to_owned());
            self.line(format!("regex_options {options}"));
        }
        if regex.min_offset != 0 {
            self.line(format!("regex_min_offset {}", regex.min_offset));
        }
        if let Some(most) = regex.max_offset {
            self.line(format!("regex_max_offset {most}"));
        }
        if let Some((start, most)) = regex.stack {
            self.line(format!("regex_stack {start} {most}"));
        }
    }

    fn misc(&mut self, check: &MiscCheck) {
        self.line(format!("misc_path {}", script(&check.script)));
        if let Some(timeout) = check.timeout {
            self.line(format!("misc_timeout {}", timeout.as_secs()));
        }
        self.flag(check.dynamic, "misc_dynamic");
    }

    fn udp(&mut self, check: &UdpCheck) {
        if let Some(payload) = &check.payload {
            let payload: String = payload.iter().map(|byte| format!("{byte:02x}")).collect();
            self.line(format!("payload {payload}"));
        }
        if let Some(reply) = &check.reply {
            let pattern: String = reply.pattern.iter().map(ToString::to_string).collect();
            let blank = if pattern.is_empty() { "" } else { " " };
            self.line(format!("require_reply{blank}{pattern}"));
            self.line(format!("min_reply_length {}", reply.min_length));
            self.line(format!("max_reply_length {}", reply.max_length));
        }
    }
}
