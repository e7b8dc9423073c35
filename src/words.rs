//! Words of messages and reports: numbers and others' texts, fit for a line.

/// In lower-case hexadecimal.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The first `limit` characters of a text, with "…" after them where there are more.
pub fn shortened(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// The beginning of something that a user or a file has written, in quotes, with escapes for what has no picture.
pub fn quoted(text: &str) -> String {
    const LIMIT: usize = 60;
    match text.char_indices().nth(LIMIT) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}…", &text[..end]),
    }
}

/// A library's message about an untrusted file, which may quote any of it, made fit for one line of at most `limit` characters.
pub fn on_one_line(message: &str, limit: usize) -> String {
    let mut line = String::new();
    for c in shortened(message, limit).chars() {
        match c {
            c if c.is_control() => line.extend(c.escape_debug()),
            c => line.push(c),
        }
    }
    line
}

/// Whether a terminal or a page obeys the character instead of showing it: controls, and what turns the direction of what follows.
pub fn is_obeyed(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text of somebody's on one line, without what a terminal would obey.
pub fn visible(text: &str) -> String {
    let visible = |c: char| match c {
        '\n' | '\r' | '\t' => ' ',
        c if is_obeyed(c) => '\u{fffd}',
        c => c,
    };
    text.chars().map(visible).collect()
}

/// A line as text, or which of its bytes is none.
pub fn utf8(line: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(line).map_err(|error| {
        let at = error.valid_up_to();
        format!(
            "expected UTF-8, found the byte 0x{:02x} at byte {}; if all of it is text from Windows, iconv -f CP1252 -t \
             UTF-8 converts it",
            line[at],
            at + 1
        )
    })
}

/// A message of serde's with numbers called as people would.
pub fn with_numbers_named(message: &str) -> String {
    let whole = ["usize", "u64", "u32"]
        .iter()
        .fold(message.to_owned(), |message, integer| {
            message.replace(&format!("expected {integer}"), "expected a whole number of at least 0")
        });
    whole
        .replace("expected f32", "expected a number")
        .replace("expected f64", "expected a number")
}

/// A number and what it counts.
pub fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// What one of `many` is called, a plural that ends in s.
pub fn singular(many: &str) -> &str {
    many.strip_suffix('s').unwrap_or(many)
}

/// A whole number with commas.
pub fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters_and_numbers_read_as_people_write_them() {
        assert_eq!(shortened("añb", 2), "añ…");
        assert_eq!(shortened("añb", 3), "añb");
        assert_eq!(quoted("a\n\"b"), r#""a\n\"b""#);
        let long = "é".repeat(61);
        assert_eq!(quoted(&long), format!("\"{}\"…", "é".repeat(60)));
        assert_eq!(visible("a\tb\u{9b}c\u{202e}é"), "a b\u{fffd}c\u{fffd}é");
        assert_eq!(
            [1, 0, 2].map(|n| counted(n, "pair", "pairs")),
            ["1 pair", "0 pairs", "2 pairs"]
        );
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(thousands),
            ["0", "999", "1,000", "1,234,567"]
        );
    }
}
