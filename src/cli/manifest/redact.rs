//! Takes secrets out of whatever is about to be written down.

use crate::checkpoint::HubOptions;

/// What stands where a secret was.
const HIDDEN: &str = "***";
/// Environment variables whose names contain one of these hold secrets.
const SECRET_NAMES: [&str; 7] = [
    "TOKEN",
    "SECRET",
    "PASSWORD",
    "PASSWD",
    "API_KEY",
    "ACCESS_KEY",
    "CREDENTIAL",
];
/// Shorter values are words like `false`, and would be found everywhere.
const SHORTEST_SECRET: usize = 8;
/// Parameters of an address that let whoever has them in.
const SECRET_PARAMETERS: [&str; 6] = ["token", "key", "secret", "signature", "sig", "password"];
/// How the hub's tokens begin, and the fewest characters after that (they have 34; a file may be called hf_something).
const HUB_TOKEN: (&str, usize) = ("hf_", 30);

/// Knows this process's secrets.
pub struct Redactor {
    /// Longest first, so that no part of one is left over.
    secrets: Vec<String>,
}

impl Redactor {
    /// Secrets in the environment: by their variables' names, log-ins in addresses, the hub's token wherever
    /// it is kept.
    pub fn from_env() -> Self {
        let variables =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self::new(variables, HubOptions::from_env().token)
    }

    fn new(variables: impl Iterator<Item = (String, String)>, token: Option<String>) -> Self {
        let mut secrets: Vec<String> = token.into_iter().collect();
        for (name, value) in variables {
            let name = name.to_ascii_uppercase();
            if SECRET_NAMES.iter().any(|part| name.contains(part)) {
                secrets.push(value.trim().to_owned());
            }
            for user_info in user_infos(&value) {
                let user_info = &value[user_info];
                let password = user_info.split_once(':').map(|(_, password)| password);
                secrets.extend(password.map(str::to_owned));
            }
        }
        secrets.retain(|secret| secret.len() >= SHORTEST_SECRET);
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.dedup();
        Self { secrets }
    }

    /// `text` without its secrets.
    pub fn redact(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.secrets {
            text = text.replace(secret, HIDDEN);
        }
        for user_info in user_infos(&text).into_iter().rev() {
            text.replace_range(user_info, HIDDEN);
        }
        hide_parameters(&hide_hub_tokens(&text))
    }

    /// Every string in `value` without its secrets; keys are this program's own words.
    pub fn redact_all(&self, value: serde_json::Value) -> serde_json::Value {
        use serde_json::Value;
        match value {
            Value::String(text) => Value::String(self.redact(&text)),
            Value::Array(values) => Value::Array(values.into_iter().map(|value| self.redact_all(value)).collect()),
            Value::Object(members) => {
                let members = members.into_iter();
                Value::Object(members.map(|(key, value)| (key, self.redact_all(value))).collect())
            }
            other => other,
        }
    }
}

/// Where addresses in `text` have a log-in: `user:password` in `http://user:password@host`.
fn user_infos(text: &str) -> Vec<std::ops::Range<usize>> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(at) = text[from..].find("://") {
        let start = from + at + 3;
        let rest = &text[start..];
        let end = rest
            .find(|c| "/?#".contains(c) || ends_address(c))
            .unwrap_or(rest.len());
        if let Some(at) = rest[..end].rfind('@') {
            found.push(start..start + at);
        }
        from = start;
    }
    found
}

fn hide_hub_tokens(text: &str) -> String {
    let (prefix, shortest) = HUB_TOKEN;
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(prefix) {
        let (before, token) = rest.split_at(at);
        let length = token[prefix.len()..]
            .find(|c: char| !c.is_ascii_alphanumeric())
            .unwrap_or(token.len() - prefix.len());
        out += before;
        out += if length >= shortest {
            HIDDEN
        } else {
            &token[..prefix.len() + length]
        };
        rest = &token[prefix.len() + length..];
    }
    out + rest
}

/// `?token=…` and the like, in addresses alone.
fn hide_parameters(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, address) = rest.split_at(at + 3);
        let (address, after) = address.split_at(address.find(ends_address).unwrap_or(address.len()));
        out += before;
        for part in address.split_inclusive(['?', '&', ';', '#']) {
            let end = part.trim_end_matches(['?', '&', ';', '#']).len();
            let (part, separator) = part.split_at(end);
            out += &match part.split_once('=') {
                Some((name, value)) if !value.is_empty() && is_secret_parameter(name) => format!("{name}={HIDDEN}"),
                _ => part.to_owned(),
            };
            out += separator;
        }
        rest = after;
    }
    out + rest
}

fn is_secret_parameter(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_PARAMETERS.iter().any(|secret| name.ends_with(secret))
}

/// Whether an address within a text is over there.
fn ends_address(c: char) -> bool {
    "\"'<>".contains(c) || c.is_whitespace()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redactor() -> Redactor {
        let variables = [
            ("HF_TOKEN", "not-even-shaped-like-one"),
            ("https_proxy", "http://me:pr0xypassword@proxy:3128"),
            ("TOKENIZERS_PARALLELISM", "false"),
            ("MY_Api_Key", " 0123456789abcdef\n"),
            // Holds another secret.
            ("MY_LONGER_Api_Key", "0123456789abcdef-and-the-rest"),
        ];
        Redactor::new(
            variables.into_iter().map(|(n, v)| (n.to_owned(), v.to_owned())),
            Some("from-the-token-file".to_owned()),
        )
    }

    #[test]
    fn secrets_go_and_the_rest_stays() {
        let redactor = redactor();
        for (text, expected) in [
            (
                "--model-config=/x/not-even-shaped-like-one/y",
                "--model-config=/x/***/y",
            ),
            ("from-the-token-file", "***"),
            ("0123456789abcdef", "***"),
            ("0123456789abcdef-and-the-rest", "***"),
            ("pr0xypassword alone", "*** alone"),
            ("http://user:pw@host/path?x=1", "http://***@host/path?x=1"),
            (
                "two http://a@b and https://c:d:e@f@g/h",
                "two http://***@b and https://***@g/h",
            ),
            ("http://host/a@b", "http://host/a@b"),
            (
                "https://host/f?a=1&X-Amz-Signature=abc&b=2",
                "https://host/f?a=1&X-Amz-Signature=***&b=2",
            ),
            ("https://host/f?token=abc", "https://host/f?token=***"),
            (
                "--revision=https://host/f?token=abc",
                "--revision=https://host/f?token=***",
            ),
            (
                "https://host/f?token=abc&a=1 and \"http://host/?a=2&sig=x#b\", none of which",
                "https://host/f?token=***&a=1 and \"http://host/?a=2&sig=***#b\", none of which",
            ),
            ("key=1 http://host/f?monkey= x", "key=1 http://host/f?monkey= x"),
            ("hf_ABCDEFGHIJKLMNOPqrstuvwxyz01234567/x", "***/x"),
            ("hf_pharmacovigilance2024.jsonl", "hf_pharmacovigilance2024.jsonl"),
            ("owner/hf_small_model", "owner/hf_small_model"),
            ("false token=x me@example.org é", "false token=x me@example.org é"),
        ] {
            assert_eq!(redactor.redact(text), expected);
        }
        let value = serde_json::json!({"a key": [{"a": "http://u:p@h"}, 1, null, "from-the-token-file"]});
        let expected = serde_json::json!({"a key": [{"a": "http://***@h"}, 1, null, "***"]});
        assert_eq!(redactor.redact_all(value), expected);
    }
}
