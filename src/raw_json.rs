//! Raw JSON text of one value: what it is, what a string says, and what is wrong with it.

use std::borrow::Cow;

use crate::words::quoted;

/// The value of a raw JSON string, none if it holds a lone surrogate.
pub fn decode(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str(raw).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

/// A raw string's value in quotes, for a message.
pub fn shown(raw: &str) -> String {
    decode(raw).map_or_else(|| raw.to_owned(), |value| quoted(&value))
}

/// What a JSON value is, by its first byte.
pub fn kind(first: u8) -> &'static str {
    match first {
        b'{' => "an object",
        b'[' => "an array",
        b'"' => "a string",
        b't' | b'f' => "a boolean",
        b'n' => "null",
        _ => "a number",
    }
}

/// What is wrong with a line of JSON, and at which of its bytes; serde would call it line 1 of whatever file.
pub fn describe(error: &serde_json::Error) -> String {
    let place = format!(" at line {} column {}", error.line(), error.column());
    let reason = error.to_string().replace(&place, "");
    format!("{reason} at byte {}", error.column())
}
